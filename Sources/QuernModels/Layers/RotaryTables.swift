import Quern

/// The rotary positions of a model's layers: of those that see every token, and of those with a window.
struct RotaryTables: Sendable {
  private var kinds: [DecoderConfiguration.Rotary?] = []
  private var positions = 0
  private var global, local: RotaryTable?

  /// Makes the positions below `count`, where they are not there.
  ///
  /// - Parameter own: that of layers with a window, where they have their own.
  mutating func reserve(
    _ count: Int, global: DecoderConfiguration.Rotary?, local own: DecoderConfiguration.Rotary?
  ) throws(QuernError) {
    guard count > positions || kinds.count != 2 || kinds[0] != global || kinds[1] != own else { return }
    func table(_ rotary: DecoderConfiguration.Rotary?) throws(QuernError) -> RotaryTable? {
      guard let rotary else { return nil }
      return try RotaryTable(positions: count, size: rotary.size, theta: rotary.theta, scaling: rotary.scaling)
    }
    (self.global, self.local) = (try table(global), try table(own))
    (kinds, positions) = ([global, own], count)
  }

  subscript(isLocal isLocal: Bool) -> RotaryTable? { isLocal ? local ?? global : global }
}
