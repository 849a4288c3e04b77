import ArgumentParser

/// `warren completion`: a script for a shell.
struct Completion: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print a completion script for bash, zsh or fish.",
        discussion: "For bash: warren completion bash > /usr/share/bash-completion/completions/warren")

    @Argument(help: "The shell.") var shell: Shell
    @OptionGroup var locations: Locations

    enum Shell: String, CaseIterable, ExpressibleByArgument {
        case bash, zsh, fish
    }

    func run() throws {
        let shell: CompletionShell =
            switch self.shell {
            case .bash: .bash
            case .zsh: .zsh
            case .fish: .fish
            }
        print(Warren.completionScript(for: shell))
    }
}
