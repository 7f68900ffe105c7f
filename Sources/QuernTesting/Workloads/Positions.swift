import Quern

extension Suite {
  static let positions = Suite()
}
