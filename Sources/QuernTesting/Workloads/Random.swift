import Quern

extension Suite {
  static let random = Suite()
}
