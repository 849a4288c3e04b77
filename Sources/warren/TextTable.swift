import ControlAPI

/// Columns of text, as wide as they must be.
enum TextTable {
    /// The header and the rows, two spaces between columns, one line each.
    static func render(header: [String], rows: [[String]]) -> String {
        let lines = ([header] + rows).map { $0.map { OperatorText.singleLine($0, limit: 200) } }
        let widths = header.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
        return lines.map { line in
            var text = zip(line, widths).map { cell, width in
                cell + String(repeating: " ", count: width - cell.count)
            }.joined(separator: "  ")
            while text.last == " " { text.removeLast() }
            return text + "\n"
        }.joined()
    }
}

/// Numbers as people read them.
enum Quantity {
    /// `999 B`, `1.0 kB`, `3.4 GB`: powers of 1000.
    static func bytes(_ count: UInt64) -> String {
        var value = Double(count)
        var units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"][...]
        // 999.95 would be rounded to 1000.0.
        while value >= 999.95, units.count > 1 {
            value /= 1000
            units.removeFirst()
        }
        guard let unit = units.first, unit != "B" else { return "\(count) B" }
        return "\(Self.oneDecimal(value)) \(unit)"
    }

    /// `0 bit/s`, `9.4 Gbit/s`: powers of 1000.
    static func bitRate(_ bitsPerSecond: Double) -> String {
        guard bitsPerSecond.isFinite, (0...1e18).contains(bitsPerSecond) else { return "-" }
        var value = bitsPerSecond
        var units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"][...]
        while value >= 999.95, units.count > 1 {
            value /= 1000
            units.removeFirst()
        }
        guard let unit = units.first, unit != "bit/s" else { return "\(Int(value.rounded())) bit/s" }
        return "\(Self.oneDecimal(value)) \(unit)"
    }

    /// `0.04 s`, `12.30 s`.
    static func seconds(_ value: Double) -> String {
        guard value.isFinite, (0...1e9).contains(value) else { return "-" }
        let hundredths = Int((value * 100).rounded())
        return "\(hundredths / 100).\(hundredths / 10 % 10)\(hundredths % 10) s"
    }

    /// `0.42 ms`, `31.0 ms`.
    static func milliseconds(_ value: Double) -> String {
        guard value.isFinite, (0...1e9).contains(value) else { return "-" }
        let hundredths = Int((value * 100).rounded())
        return value < 10
            ? "\(hundredths / 100).\(hundredths / 10 % 10)\(hundredths % 10) ms" : "\(Self.oneDecimal(value)) ms"
    }

    /// `12 s`, `3 min 4 s`, `2 h 3 min`, `5 d 6 h`.
    static func span(seconds: Double) -> String {
        guard seconds.isFinite, (0...1e12).contains(seconds) else { return "-" }
        let total = Int(seconds)
        switch total {
        case ..<60: return "\(total) s"
        case ..<3600: return "\(total / 60) min \(total % 60) s"
        case ..<86_400: return "\(total / 3600) h \(total / 60 % 60) min"
        default: return "\(total / 86_400) d \(total / 3600 % 24) h"
        }
    }

    private static func oneDecimal(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}
