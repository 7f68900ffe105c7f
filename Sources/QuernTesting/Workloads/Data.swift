import Quern

extension Suite {
  static let data = Suite()
}
