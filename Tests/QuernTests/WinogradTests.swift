import Quern
import QuernTesting
import Testing

/// What Winograd's sums cost in accuracy, and when they are taken. The bound of every element is the conformance tests'.
@Suite struct WinogradTests {
  /// The same operands through a convolution with 3 x 3 taps and a border.
  private static func convolve(
    _ x: TensorView, outputs: Int, upsampling: Int = 1, allowsWinograd: Bool, sums: ConvolutionSums
  ) throws -> [Float] {
    let context = Context(backend: try MultithreadedBackend(options: BackendOptions(convolution: sums)))
    let weights = try MutableTensor.normal(Shape(outputs, x.shape[3], 3, 3), seed: 2)
    let packed = try context.packConvolution(
      weights.view, Convolution(padding: 1, upsampling: upsampling, allowsWinograd: allowsWinograd))
    let y = try MutableTensor(zeros: packed.outputShape(of: x.shape))
    try context.conv2d(x, weights: packed, into: y)
    return y.elements
  }

  @Test(arguments: [(32, 320), (16, 640), (20, 64)])
  func theErrorIsASmallShareOfTheLargestResult(_ size: Int, _ channels: Int) throws {
    let x = try MutableTensor.normal(Shape(1, size, size, channels), seed: 1).view
    let direct = try Self.convolve(x, outputs: 32, allowsWinograd: true, sums: .direct)
    let winograd = try Self.convolve(x, outputs: 32, allowsWinograd: true, sums: .winograd)
    let largest = direct.map(abs).max() ?? 0
    let difference = zip(direct, winograd).map { abs($0 - $1) }.max() ?? 0
    #expect(difference > 0, "the sums are formed otherwise")
    #expect(difference <= 1e-5 * largest)
  }

  /// Differences of repeated pixels have a third of F(4, 3)'s error, and direct sums the bits of those over a stored image.
  @Test(arguments: [(2, 320), (16, 640), (10, 64)])
  func anEnlargedImageHasTheErrorOfDirectSums(_ size: Int, _ channels: Int) throws {
    let x = try MutableTensor.normal(Shape(1, size, size, channels), seed: 1).view
    let larger = try MutableTensor(zeros: Shape(1, 2 * size, 2 * size, channels))
    try Context(backend: ReferenceBackend()).resize(x, by: .nearest, into: larger)
    let stored = try Self.convolve(larger.view, outputs: 32, allowsWinograd: false, sums: .direct)
    let direct = try Self.convolve(x, outputs: 32, upsampling: 2, allowsWinograd: true, sums: .direct)
    let differences = try Self.convolve(x, outputs: 32, upsampling: 2, allowsWinograd: true, sums: .winograd)
    let largest = stored.map(abs).max() ?? 0
    #expect(direct == stored)
    let error = zip(stored, differences).map { abs($0 - $1) }.max() ?? 0
    #expect(error > 0, "the sums are formed otherwise")
    #expect(error <= 1e-6 * largest)
  }

  @Test func aConvolutionThatDoesNotAllowItHasDirectSums() throws {
    let x = try MutableTensor.normal(Shape(1, 32, 32, 32), seed: 1).view
    let direct = try Self.convolve(x, outputs: 32, allowsWinograd: true, sums: .direct)
    #expect(try Self.convolve(x, outputs: 32, allowsWinograd: false, sums: .winograd) == direct)
  }

  @Test func smallImagesHaveDirectSumsHoweverManyThereAre() throws {
    let x = try MutableTensor.normal(Shape(8, 8, 8, 32), seed: 1).view
    let direct = try Self.convolve(x, outputs: 32, allowsWinograd: true, sums: .direct)
    #expect(try Self.convolve(x, outputs: 32, allowsWinograd: true, sums: .winograd) == direct)
  }

  @Test func anImageHasTheSameBitsAmongOthers() throws {
    let x = try MutableTensor.normal(Shape(3, 18, 21, 40), seed: 1).view
    let all = try Self.convolve(x, outputs: 48, allowsWinograd: true, sums: .winograd)
    let alone = try Self.convolve(
      x.rows(1..<2), outputs: 48, allowsWinograd: true, sums: .winograd)
    #expect(Array(all[alone.count..<2 * alone.count]) == alone)
  }

  @Test func anEnlargedImageHasTheSameBitsAmongOthers() throws {
    let x = try MutableTensor.normal(Shape(3, 9, 7, 40), seed: 1).view
    func convolve(_ x: TensorView) throws -> [Float] {
      try Self.convolve(x, outputs: 48, upsampling: 2, allowsWinograd: true, sums: .winograd)
    }
    let (all, alone) = (try convolve(x), try convolve(x.rows(1..<2)))
    #expect(Array(all[alone.count..<2 * alone.count]) == alone)
  }
}
