/// Why a file of a model could not be used: which file, which field, which byte, and what is wrong with it.
public struct ModelError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The path of the file, as it was given.
  public var file: String
  /// The place in the file in the format's own words, such as `tensors.encoder.weight.data_offsets`.
  public var field: String
  /// The byte of the file where the field begins, where there is one.
  public var offset: Int?
  /// What is wrong and, where that helps, what to do about it.
  public var reason: String

  public init(file: String, field: String, offset: Int? = nil, reason: String) {
    self.file = file
    self.field = field
    self.offset = offset
    self.reason = reason
  }

  /// One line, `FILE: FIELD (byte N): reason`; names from the file are escaped so that they cannot break the line.
  public var description: String {
    var line = Self.printable(file)
    if !field.isEmpty { line += ": " + Self.printable(field) }
    if let offset { line += " (byte \(offset))" }
    return line + ": " + Self.printable(reason)
  }

  /// `text` on one line: control and bidirectional characters escaped, and a long middle left out.
  static func printable(_ text: String) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in shortened(text).unicodeScalars {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned:
        scalars.append(contentsOf: "\\u{\(String(scalar.value, radix: 16, uppercase: true))}".unicodeScalars)
      default:
        scalars.append(scalar)
      }
    }
    return String(scalars)
  }

  private static func shortened(_ text: String) -> String {
    let head = 300
    let tail = 100
    guard text.utf8.count > head + tail, text.unicodeScalars.count > head + tail else { return text }
    return String(text.unicodeScalars.prefix(head)) + "…" + String(text.unicodeScalars.suffix(tail))
  }
}
