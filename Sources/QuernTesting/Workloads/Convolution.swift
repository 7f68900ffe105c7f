import Quern

extension Suite {
  static let convolution = Suite()
}
