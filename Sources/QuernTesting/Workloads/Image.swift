import Quern

extension Suite {
  static let image = Suite()
}
