import Quern

extension Suite {
  static let routing = Suite()
}
