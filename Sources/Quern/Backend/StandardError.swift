#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Messages for people: progress and warnings go to standard error, never into output that scripts read.
package enum StandardError {
  package static func write(_ text: String) {
    var text = text
    text.withUTF8 { bytes in _ = systemWrite(2, bytes.baseAddress, bytes.count) }
  }

  package static func writeLine(_ text: String) { write(text + "\n") }

  /// Whether a person is watching.
  package static var isTerminal: Bool { isatty(2) == 1 }
}

/// libc's write, out of reach where a method of the same name shadows it.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
  write(descriptor, bytes, count)
}
