import Quern
import QuernTesting
import Testing

/// The forms that may write over an operand, on every backend: the same numbers as with memory of its own.
@Suite struct InPlaceTests {
  private static let shape = Shape(19, 45)

  private static func random(_ seed: UInt64, _ shape: Shape = shape) throws -> MutableTensor {
    try Operands(seed: seed).make(shape)
  }

  /// An operation on x, with another operand, into y.
  struct Form: Sendable, CustomStringConvertible {
    let description: String
    /// Whether y is the other operand and not x.
    var writesOther = false
    let run: @Sendable (Context, _ x: TensorView, _ other: TensorView, _ y: MutableTensor) throws -> Void
  }

  private static let forms: [Form] = [
    Form(description: "softmax") { try $0.softmax($1, scale: 0.5, into: $3) },
    Form(description: "masked softmax") { try $0.softmax($1, mask: $2, diagonal: 3, into: $3) },
    Form(description: "layerNorm") { try $0.layerNorm($1, residual: $2, into: $3) },
    Form(description: "layerNorm over the residual", writesOther: true) {
      try $0.layerNorm($1, residual: $2, into: $3)
    },
    Form(description: "rmsNorm") { try $0.rmsNorm($1, residual: $2, into: $3) },
    Form(description: "rmsNorm over the residual", writesOther: true) { try $0.rmsNorm($1, residual: $2, into: $3) },
    Form(description: "gelu") { context, x, _, y in try context.activation(.gelu, x, into: y) },
    Form(description: "silu") { context, x, _, y in try context.activation(.silu, x, into: y) },
    Form(description: "add") { try $0.add($1, $2, into: $3) },
    Form(description: "add over b", writesOther: true) { try $0.add($1, $2, into: $3) },
    Form(description: "multiply") { try $0.multiply($1, $2, into: $3) },
    Form(description: "multiply over b", writesOther: true) { try $0.multiply($1, $2, into: $3) },
    Form(description: "scale") { context, x, _, y in try context.scale(x, by: -0.25, into: y) },
    Form(description: "l2Normalize") { context, x, _, y in try context.l2Normalize(x, into: y) },
  ]

  @Test(arguments: forms) func rowsMayBeWrittenOver(_ form: Form) throws {
    for context in try availableContexts() {
      let apart = try MutableTensor(zeros: Self.shape)
      try form.run(context, Self.random(1).view, Self.random(2).view, apart)
      let (x, other) = (try Self.random(1), try Self.random(2))
      let y = form.writesOther ? other : x
      try form.run(context, x.view, other.view, y)
      #expect(y.elements == apart.elements, "\(form) on \(type(of: context.backend).name)")
    }
  }

  /// Long products are cut along K, and the residual must outlive the first cut.
  @Test(arguments: [33, 1500], Activation.allCases) func theResidualMayBeTheDestination(
    _ inputs: Int, _ activation: Activation
  ) throws {
    for context in try availableContexts() {
      let (x, w) = (try Self.random(3, Shape(19, inputs)), try Self.random(4, Shape(45, inputs)))
      let epilogue = Epilogue(scale: 0.5, bias: try Operands(seed: 5).vector(45), activation: activation)
      let weights = try context.pack(w.view)
      let (apart, linear, matmul) = (try MutableTensor(zeros: Self.shape), try Self.random(6), try Self.random(6))
      try context.linear(x.view, weights: weights, epilogue: epilogue, residual: Self.random(6).view, into: apart)
      try context.linear(x.view, weights: weights, epilogue: epilogue, residual: linear.view, into: linear)
      try context.matmul(
        x.view, w.view.transposed(), epilogue: epilogue, residual: matmul.view, into: matmul)
      let name = type(of: context.backend).name
      // A backend may add the residual first where nothing stands between, so the last bits may differ.
      for (form, y) in [("linear", linear), ("matmul", matmul)] {
        let error = zip(y.elements, apart.elements).map { abs($0 - $1) }.max() ?? 0
        #expect(error < 2e-4, "\(form) K=\(inputs) \(activation.rawValue) on \(name): \(error)")
      }
    }
  }

  @Test func matmulMayAccumulate() throws {
    for context in try availableContexts() {
      let (a, b, c) = (try Self.random(7, Shape(19, 33)), try Self.random(8, Shape(33, 45)), try Self.random(9))
      let product = try MutableTensor(zeros: Self.shape)
      try context.matmul(a.view, b.view, into: product)
      try context.matmul(a.view, b.view, beta: 2, into: c)
      let held = try Self.random(9).elements
      let error = zip(zip(product.elements, held), c.elements).map { abs($0.0 + 2 * $0.1 - $1) }.max() ?? 1
      #expect(error < 1e-4, "\(type(of: context.backend).name): \(error)")
    }
  }

  /// Queries, keys and values of a joint projection: columns of one buffer, as an encoder has them.
  @Test func neighbouringColumnsDoNotOverlap() throws {
    let memory = try Self.random(10, Shape(6, 12))
    for context in try availableContexts() {
      try context.scale(memory.view.columns(0..<4), by: 2, into: memory.columns(4..<8))
      for row in 0..<6 {
        for column in 0..<4 { #expect(memory.base[row * 12 + column + 4] == 2 * memory.base[row * 12 + column]) }
      }
    }
  }
}
