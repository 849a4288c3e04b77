@main enum Warren { static func main() {} }
