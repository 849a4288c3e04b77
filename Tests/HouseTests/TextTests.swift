import Testing

/// What no file of this repository says or lacks.
@Suite struct TextTests {
    static let sources = Checkout.swift("Sources").filter { !$0.isGenerated }

    @Test func theCheckoutIsRead() {
        #expect(Self.sources.count > 100)
        #expect(Checkout.files.contains { $0.path == "Package.swift" })
    }

    @Test func nothingEndsTheProgramOnPurpose() {
        #expect(Checkout.places(of: /\btry!|\bas!|\bfatalError\(|\bpreconditionFailure\(/, in: Self.sources).isEmpty)
    }

    @Test func nothingIsLeftForLater() {
        let files = Checkout.files.filter { !$0.path.hasPrefix("Tests/HouseTests/") }
        #expect(Checkout.places(of: /\b(TODO|FIXME|XXX|HACK)\b/, in: files, code: false).isEmpty)
    }

    /// Optimized code of Swift 6.3.1 can free an array that is discarded before its elements are copied into it.
    @Test func noArrayIsMadeToBeThrownAway() {
        #expect(Checkout.places(of: /\b_ = (try[?]? )?(Array|\[\w+\])\(/, in: Self.sources).isEmpty)
    }

    /// Paths of one machine, and sources of packages other than the public ones.
    @Test func nothingKnowsWhereItWasWritten() {
        let files = Checkout.files.filter { !$0.path.hasPrefix("Tests/HouseTests/") && $0.path != "Package.resolved" }
        let machine = /(^|[\s"'`=:(])\/(home|Users|work|root|mnt)\/\w|\.\.\/shared\b/
        #expect(Checkout.places(of: machine, in: files, code: false).isEmpty)
        let registry =
            /\b(artifactory|nexus|registry|mirror)[\w-]*\.[\w-]+\.\w|:\/\/proxy[\w-]*\.[\w-]+\.\w|:\/\/[^\/\s]*\.(internal|local|lan|corp)\b/
        #expect(Checkout.places(of: registry, in: files, code: false).isEmpty)
    }

    @Test func packagesComeFromTheirProjects() {
        let manifests = Checkout.files.filter { $0.name == "Package.swift" }
        #expect(!manifests.isEmpty)
        for manifest in manifests {
            for url in manifest.text.matches(of: /\.package\(url: "([^"]*)"/).map(\.1) {
                #expect(url.hasPrefix("https://github.com/"), "\(manifest): \(url)")
            }
        }
    }

    @Test func filesStayReadable() {
        let kinds = [".swift", ".c", ".h", ".py", ".sh", ".proto"]
        for file in Checkout.files where !file.isGenerated && kinds.contains(where: file.path.hasSuffix) {
            #expect(file.lines.count <= 701, "\(file) has \(file.lines.count - 1) lines")
        }
    }

    @Test func aLicenseIsThere() throws {
        let license = try #require(Checkout.files.first { $0.path == "LICENSE" })
        #expect(license.text.count > 500)
    }

    // MARK: Generated code

    static let protos = Checkout.files.filter { $0.path.hasPrefix("Sources/") && $0.path.hasSuffix(".proto") }
    static let generated = Checkout.files.filter(\.isGenerated)

    @Test func everyGeneratedFileHasItsSource() {
        #expect(!Self.generated.isEmpty)
        for file in Self.generated {
            #expect(file.text.hasPrefix("// DO NOT EDIT.\n// swift-format-ignore-file\n"), "\(file)")
            let name = file.name.replacing(".pb.swift", with: ".proto")
            #expect(file.text.contains("// Source: \(name)\n"), "\(file)")
            #expect(Self.protos.contains { $0.name == name && $0.path.target == file.path.target }, "\(file)")
        }
    }

    @Test(arguments: protos)
    func everyProtoIsGenerated(_ proto: Checkout.File) throws {
        let name = proto.name.replacing(".proto", with: ".pb.swift")
        let file = try #require(Self.generated.first { $0.name == name && $0.path.target == proto.path.target })
        // Names that are in one but not in the other: it was not generated again.
        let code = proto.code
        let types = code.matches(of: /\b(?:message|enum)\s+(\w+)/).map { String($0.1) }
        let fields = code.matches(of: /\b(\w+)\s*=\s*\d+\s*(?:\[[^\]]*\])?;/).map { String($0.1) }
        #expect(!types.isEmpty && !fields.isEmpty)
        let generated = file.text.replacing("_", with: "").lowercased()
        for name in types + fields {
            let isThere = generated.contains(name.replacing("_", with: "").lowercased())
            #expect(isThere, "\(file) lacks \(name)")
        }
    }
}

extension String {
    /// `Sources/Target/…` → `Target`.
    fileprivate var target: Substring? { self.split(separator: "/").dropFirst().first }
}
