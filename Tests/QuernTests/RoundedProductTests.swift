import Quern
import QuernTesting
import Testing

/// Products whose operands may be rounded to bf16: their error, and where they are taken.
@Suite struct RoundedProductTests {
  private static func linear(
    _ x: TensorView, _ weights: TensorView, isa: ISA, _ products: F32Products, threads: Int = 2
  ) throws -> [Float] {
    let options = BackendOptions(threads: threads, isa: isa, f32: products)
    let context = Context(backend: try MultithreadedBackend(options: options))
    let y = try MutableTensor(zeros: Shape(x.shape[0], weights.shape[0]))
    try context.linear(x, weights: context.pack(weights), into: y)
    return y.elements
  }

  private static func multipliesBF16(_ isa: ISA) -> Bool { isa == .avx512bf16 || isa == .amx }

  @Test(arguments: ISA.available, [DataType.f32, .bf16])
  func theErrorIsWhatRoundingBothOperandsCosts(_ isa: ISA, _ type: DataType) throws {
    let (rows, inputs, outputs) = (33, 643, 70)
    let x = try MutableTensor.normal(Shape(rows, inputs), seed: 1)
    let given = try MutableTensor.normal(Shape(outputs, inputs), seed: 2)
    let stored = try MutableTensor(zeros: given.shape, dataType: type)
    try Context(backend: ReferenceBackend()).copy(given.view, into: stored)
    let w = try MutableTensor(zeros: given.shape)
    try Context(backend: ReferenceBackend()).copy(stored.view, into: w)
    let (a, b) = (x.elements, w.elements)
    let rounded = try Self.linear(x.view, stored.view, isa: isa, .bf16)
    let exact = try Self.linear(x.view, stored.view, isa: isa, .fma)
    for i in 0..<rows {
      for j in 0..<outputs {
        let terms = (0..<inputs).map { Double(a[i * inputs + $0]) * Double(b[j * inputs + $0]) }
        let magnitude = terms.reduce(0) { $0 + abs($1) }
        let error = abs(Double(rounded[i * outputs + j]) - terms.reduce(0, +))
        #expect(error <= (0x1p-7 * (1 + 0x1p-8) + Double(inputs + 3) * 0x1p-24) * magnitude)
      }
    }
    #expect((rounded != exact) == Self.multipliesBF16(isa))
  }

  private static func convolve(
    _ x: TensorView, _ weights: TensorView, isa: ISA, _ products: F32Products, add: TensorView? = nil, threads: Int = 2
  ) throws -> [Float] {
    let options = BackendOptions(threads: threads, isa: isa, f32: products)
    let context = Context(backend: try MultithreadedBackend(options: options))
    let packed = try context.packConvolution(weights, Convolution(stride: 2, padding: 1))
    let y = try MutableTensor(zeros: packed.outputShape(of: x.shape))
    try context.conv2d(x, weights: packed, add: add, into: y)
    return y.elements
  }

  @Test(arguments: ISA.available) func theErrorOfAConvolutionIsThatOfItsProducts(_ isa: ISA) throws {
    let x = try MutableTensor.normal(Shape(2, 13, 17, 24), seed: 1)
    let w = try MutableTensor.normal(Shape(40, 24, 3, 3), seed: 2)
    let rounded = try Self.convolve(x.view, w.view, isa: isa, .bf16)
    let exact = try Self.convolve(x.view, w.view, isa: isa, .fma)
    let sizes = try [x, w].map { try Tensor($0.elements.map { abs($0) }, shape: $0.shape) }
    let magnitudes = try Self.convolve(sizes[0].view, sizes[1].view, isa: isa, .fma)
    let bound: Float = 0x1p-7 * (1 + 0x1p-8) + 2 * 220 * 0x1p-24
    for (i, magnitude) in magnitudes.enumerated() { #expect(abs(rounded[i] - exact[i]) <= bound * magnitude) }
    #expect((rounded != exact) == Self.multipliesBF16(isa))
    let second = Array(rounded[(rounded.count / 2)...])
    #expect(try Self.convolve(x.view.rows(1..<2), w.view, isa: isa, .bf16) == second)
    #expect(try Self.convolve(x.view, w.view, isa: isa, .bf16, threads: 1) == rounded)
  }

  /// Images whose pixels fill blocks of rows share one product.
  @Test(arguments: ISA.available) func imagesOfOneProductHaveTheBitsOfTheirOwn(_ isa: ISA) throws {
    let x = try MutableTensor.normal(Shape(3, 16, 16, 24), seed: 1).view
    let w = try MutableTensor.normal(Shape(40, 24, 3, 3), seed: 2).view
    let add = try MutableTensor.normal(Shape(3, 40), seed: 3).view
    let all = try Self.convolve(x, w, isa: isa, .bf16, add: add)
    for image in 0..<3 {
      let rows = image..<image + 1
      let alone = try Self.convolve(x.rows(rows), w, isa: isa, .bf16, add: add.rows(rows))
      #expect(Array(all[image * alone.count..<rows.upperBound * alone.count]) == alone)
    }
    #expect((try Self.convolve(x, w, isa: isa, .fma, add: add) != all) == Self.multipliesBF16(isa))
  }

  @Test(arguments: ISA.available) func groupsAreRoundedWhereTheyHaveEnoughRows(_ isa: ISA) throws {
    let x = try MutableTensor.normal(Shape(80, 128), seed: 1).view
    let w = try (2..<4).map { try MutableTensor.normal(Shape(96, 128), seed: $0).view }
    func product(_ products: F32Products) throws -> [Float] {
      let options = BackendOptions(threads: 2, isa: isa, f32: products)
      let context = Context(backend: try MultithreadedBackend(options: options))
      let y = try MutableTensor(zeros: Shape(80, 96))
      let segments = try Segments(lengths: [70, 10])
      try context.expertLinear(x, segments: segments, weights: w.map { try context.pack($0) }, into: y)
      return y.elements
    }
    let (rounded, exact) = (try product(.bf16), try product(.fma))
    #expect((rounded[..<(70 * 96)] != exact[..<(70 * 96)]) == Self.multipliesBF16(isa))
    #expect(rounded[(70 * 96)...] == exact[(70 * 96)...])
    #expect(zip(rounded, exact).allSatisfy { abs($0 - $1) < 1 })
  }

  @Test(arguments: ISA.available) func fewRowsKeepTheirBits(_ isa: ISA) throws {
    let x = try MutableTensor.normal(Shape(16, 256), seed: 1).view,
      w = try MutableTensor.normal(Shape(256, 256), seed: 2).view
    #expect(try Self.linear(x, w, isa: isa, .bf16) == Self.linear(x, w, isa: isa, .fma))
  }

  @Test(arguments: ISA.available) func threadsDoNotChangeBits(_ isa: ISA) throws {
    let x = try MutableTensor.normal(Shape(100, 300), seed: 1).view,
      w = try MutableTensor.normal(Shape(200, 300), seed: 2).view
    let one = try Self.linear(x, w, isa: isa, .bf16, threads: 1)
    for threads in [2, 3, 8] { #expect(try Self.linear(x, w, isa: isa, .bf16, threads: threads) == one) }
  }

  /// Weights of attention are rounded to bf16 where every operand and the result are bf16, and nowhere else.
  @Test(arguments: ISA.available, [DataType.f32, .bf16])
  func onlyAttentionOfBF16RoundsItsWeights(_ isa: ISA, _ type: DataType) throws {
    let (queries, keys) = (33, 300)
    func rows(_ count: Int, _ seed: UInt64) throws -> MutableTensor {
      let rows = try MutableTensor(zeros: Shape(count, 2, 24), dataType: .bf16)
      try Context(backend: ReferenceBackend()).copy(MutableTensor.normal(rows.shape, seed: seed).view, into: rows)
      return rows
    }
    // Values of one, which weights that are not rounded add up to almost exactly.
    let (q, k, v) = (try rows(queries, 1), try rows(keys, 2), try rows(keys, 3))
    for place in 0..<v.shape.count { v.store(1, at: place) }
    let o = try MutableTensor(zeros: q.shape, dataType: type)
    let context = Context(backend: try MultithreadedBackend(options: BackendOptions(threads: 2, isa: isa)))
    let layout = AttentionLayout(queries: try Segments(single: queries), keys: try Segments(single: keys))
    try context.attention(queries: q.view, keys: k.view, values: v.view, layout: layout, into: o)
    let furthest = o.elements.reduce(0) { max($0, abs($1 - 1)) }
    #expect(furthest <= (type == .f32 ? 0x1p-15 : 0x1p-7))
  }
}
