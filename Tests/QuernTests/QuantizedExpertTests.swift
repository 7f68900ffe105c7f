import Quern
import QuernTesting
import Testing

/// Experts whose weights are quantised.
@Suite struct QuantizedExpertTests {
  static let backends = Backends.names.filter { Backends.unavailability(of: $0) == nil }

  /// Each expert's rows are the linear layer of its own weights, bit for bit.
  @Test(arguments: backends, QuantizedFormat.allCases)
  func rowsOfAnExpertAreItsLinearLayer(_ backend: String, _ format: QuantizedFormat) throws {
    let context = try Context(backend)
    var random = SeededRandom()
    func matrix(_ rows: Int, _ columns: Int) throws -> Tensor {
      try Tensor((0..<rows * columns).map { _ in random.normal() }, shape: Shape(rows, columns))
    }
    let (inputs, outputs) = (512, 40)
    let segments = try Segments(lengths: [3, 0, 17, 1])
    let x = try matrix(segments.total, inputs)
    let bias = try matrix(segments.count, outputs)
    let weights = try (0..<segments.count).map { _ in
      try context.pack(QuantizedMatrix(quantizing: matrix(outputs, inputs).view, as: format))
    }
    let together = try MutableTensor(zeros: Shape(segments.total, outputs))
    try context.expertLinear(
      x.view, segments: segments, weights: weights, epilogue: Epilogue(bias: bias, activation: .silu), into: together)
    for (expert, packed) in weights.enumerated() {
      let rows = segments[expert]
      let alone = try MutableTensor(zeros: Shape(rows.count, outputs))
      let own = try Tensor(Array(bias.elements[expert * outputs..<(expert + 1) * outputs]))
      try context.linear(
        x.view.rows(rows), weights: packed, epilogue: Epilogue(bias: own, activation: .silu), into: alone)
      #expect(together.rows(rows).elements == alone.elements)
    }
  }

  @Test func expertsOfDifferentFormatsAreRefused() throws {
    let context = try Context()
    let weights = try MutableTensor(zeros: Shape(4, 32))
    let formats = try [QuantizedFormat.q4, .mxfp4].map {
      try context.pack(QuantizedMatrix(quantizing: weights.view, as: $0))
    }
    let (x, y) = (try MutableTensor(zeros: Shape(2, 32)), try MutableTensor(zeros: Shape(2, 4)))
    let error = #expect(throws: QuernError.self) {
      try context.expertLinear(x.view, segments: Segments(lengths: [1, 1]), weights: formats, into: y)
    }
    #expect("\(String(describing: error))".contains("weights 1 are mxfp4, the first are q4_0"))
  }
}
