import Quern

extension Suite {
  static let sparse = Suite()
}
