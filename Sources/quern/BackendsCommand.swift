import ArgumentParser
import Foundation
import Quern

struct BackendsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backends", abstract: "Lists the backends: available or why not, instruction set, threads, libraries.")

  @Option var format = OutputFormat.text

  private struct Row: Encodable {
    let name: String
    let available: Bool
    let reason: String?
    let isa: String?
    let threads: Int?
    let library: String?
    let selected: Bool
    let verified: Bool
  }

  func run() throws {
    let settings = try Settings.environment()
    let selected = settings.backend ?? Backends.defaultName
    let rows = Backends.names.map { name -> Row in
      let backend = try? Backends.make(name)
      let library: String? =
        switch name {
        case BLASBackend.name: BLASBackend.libraryVersion
        case MultithreadedBackend.name: "\(ThreadTeam.kind) threads"
        default: nil
        }
      return Row(
        name: name, available: backend != nil, reason: Backends.unavailability(of: name), isa: backend?.isa?.rawValue,
        threads: backend?.threads, library: library, selected: name == selected,
        verified: backend is VerifyingBackend)
    }
    switch format {
    case .json:
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
      print(String(decoding: try encoder.encode(rows), as: UTF8.self))
    case .text:
      for row in rows {
        let details = [row.isa, row.threads.map { "\($0) thread\($0 == 1 ? "" : "s")" }, row.library].compactMap { $0 }
        let state = row.available ? details.joined(separator: ", ") : "not available: \(row.reason ?? "")"
        print("\(row.selected ? "*" : " ") \(row.name): \(state)")
      }
      if settings.verifies {
        print("  QUERN_VERIFY=1: every result is compared with the reference's, which is slow")
      }
      if let reason = ISA.amxRefusal { print("  without amx: \(reason)") }
    }
  }
}
