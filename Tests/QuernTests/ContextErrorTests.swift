import Quern
import QuernTesting
import Testing

/// Operands that do not fit: a typed error of one line, and a destination that nobody has touched.
@Suite struct ContextErrorTests {
  private let context = Context(backend: ReferenceBackend())

  /// A destination or an operand with recognisable elements.
  private func make(_ extents: Int...) throws -> MutableTensor {
    var shape = Shape()
    if let checked = try? Shape(checking: extents) { shape = checked }
    let tensor = try MutableTensor(zeros: shape)
    for position in 0..<shape.count { tensor.base[position] = Float(position % 11) - 5 }
    return tensor
  }

  private func vector(_ count: Int) throws -> Tensor { try Tensor([Float](repeating: 0.5, count: count)) }

  /// `body` must throw an error of `operation` that contains `text`, and leave `memory` as it is.
  private func refuses(
    _ operation: Quern.Operation, _ text: String, untouched memory: MutableTensor,
    at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void
  ) {
    let before = memory.elements
    do {
      try body()
      Issue.record("\(operation.rawValue) accepted operands it should refuse: \(text)", sourceLocation: location)
    } catch let error as QuernError {
      let line = "\(error)"
      guard case .invalidOperand(operation, _) = error else {
        Issue.record("expected \(operation.rawValue) to refuse an operand, got \(line)", sourceLocation: location)
        return
      }
      #expect(line.contains(text), sourceLocation: location)
      #expect(line.hasPrefix("\(operation.rawValue): "), sourceLocation: location)
      #expect(!line.contains("\n") && line.count < 300, sourceLocation: location)
    } catch {
      Issue.record("expected a QuernError, got \(error)", sourceLocation: location)
    }
    #expect(memory.elements == before, "wrote before it refused", sourceLocation: location)
  }

  /// Rows `stride` apart in memory that holds them all, or nearly.
  private func strided(_ memory: MutableTensor, _ shape: Shape, _ strides: Shape, offset: Int = 0) -> MutableTensor {
    memory.reinterpreted(offset: offset, shape: shape, strides: strides)
  }

  // MARK: linear and pack

  @Test func packTakesMatrices() throws {
    let memory = try make(12)
    refuses(.pack, "[12] need rank 2", untouched: memory) { _ = try context.pack(memory.view) }
    refuses(.pack, "[2, 2, 3] need rank 2", untouched: memory) {
      _ = try context.pack(memory.view.reshaped(Shape(2, 2, 3)))
    }
  }

  @Test func linearChecksShapes() throws {
    let weights = try context.pack(make(5, 4).view)
    let (x, y) = (try make(3, 4), try make(3, 5))
    func refuses(_ text: String, at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void) {
      self.refuses(.linear, text, untouched: y, at: location, body)
    }
    refuses("x has rank 0") { try context.linear(make().view, weights: weights, into: y) }
    refuses("x [3, 3] does not fit weights [5, 4]") { try context.linear(make(3, 3).view, weights: weights, into: y) }
    refuses("y has shape [3, 5]") { try context.linear(make(2, 4).view, weights: weights, into: y) }
    refuses("x [3, 4] needs unit stride") {
      try context.linear(make(4, 3).view.transposed(), weights: weights, into: y)
    }
    refuses("does not fold into rows") {
      try context.linear(make(2, 4, 4).view.slice(axis: 1, 0..<3), weights: weights, into: y)
    }
    refuses("bias has shape [4]; expected [5]") {
      try context.linear(x.view, weights: weights, epilogue: Epilogue(bias: vector(4)), into: y)
    }
    refuses("bias has shape [5]") {
      let gaps = try vector(10).reinterpreted(offset: 0, shape: Shape(5), strides: Shape(2))
      try context.linear(x.view, weights: weights, epilogue: Epilogue(bias: gaps), into: y)
    }
    refuses("residual has shape [2, 5]") {
      try context.linear(x.view, weights: weights, residual: make(2, 5).view, into: y)
    }
  }

  @Test func linearChecksMemory() throws {
    let weights = try context.pack(make(4, 4).view)
    let memory = try make(8, 4)
    let x = try make(3, 4)
    let y = memory.rows(0..<3)
    refuses(.linear, "x overlaps the destination", untouched: memory) {
      try context.linear(memory.view.rows(2..<5), weights: weights, into: y)
    }
    refuses(.linear, "x overlaps the destination", untouched: memory) {
      try context.linear(y.view, weights: weights, into: y)
    }
    refuses(.linear, "residual overlaps the destination without being it", untouched: memory) {
      try context.linear(x.view, weights: weights, residual: memory.view.rows(1..<4), into: y)
    }
    for strides in [Shape(0, 1), Shape(3, 1)] {
      refuses(.linear, "overlap", untouched: memory) {
        try context.linear(x.view, weights: weights, into: strided(memory, Shape(3, 4), strides))
      }
    }
    refuses(.linear, "y [3, 4] needs unit stride", untouched: memory) {
      try context.linear(x.view, weights: weights, into: strided(memory, Shape(3, 4), Shape(8, 2)))
    }
  }

  @Test func weightsOpaqueToAnotherBackendAreRefused() throws {
    let (x, y) = (try make(2, 3), try make(2, 4))
    let before = y.elements
    let foreign = PackedMatrix(outputs: 4, inputs: 3, layout: .opaque(backend: "elsewhere"), storage: try vector(12))
    let expected = QuernError.foreignPacking(operation: .linear, layout: "opaque to elsewhere", backend: "reference")
    #expect(throws: expected) { try context.linear(x.view, weights: foreign, into: y) }
    #expect(y.elements == before)
    #expect(!"\(expected)".contains("\n") && "\(expected)".contains("elsewhere"))
  }

  @Test func weightsOfOneBackendRunOnAnother() throws {
    let (x, w) = (try make(7, 33), try make(21, 33))
    let reference = try MutableTensor(zeros: Shape(7, 21))
    try context.linear(x.view, weights: context.pack(w.view), into: reference)
    for packer in try availableContexts() {
      for runner in try availableContexts() {
        let y = try MutableTensor(zeros: Shape(7, 21))
        try runner.linear(x.view, weights: packer.pack(w.view), into: y)
        #expect(y.elements == reference.elements, "integers packed by \(packer) and run by \(runner)")
      }
    }
  }

  // MARK: matmul

  @Test func matmulChecksShapes() throws {
    let (a, b, c) = (try make(2, 3, 4), try make(2, 4, 5), try make(2, 3, 5))
    func refuses(_ text: String, at location: SourceLocation = #_sourceLocation, _ body: () throws -> Void) {
      self.refuses(.matmul, text, untouched: c, at: location, body)
    }
    refuses("a has shape [4]; expected rank 2") { try context.matmul(make(4).view, b.view, into: c) }
    refuses("b has shape [1, 1, 4, 5]; expected rank 2") { try context.matmul(a.view, make(1, 1, 4, 5).view, into: c) }
    refuses("a has 3 batches, c has 2") { try context.matmul(make(3, 3, 4).view, b.view, into: c) }
    refuses("does not give c [2, 3, 5]") { try context.matmul(a.view, make(2, 3, 5).view, into: c) }
    refuses("does not give c [2, 3, 5]") { try context.matmul(make(2, 2, 4).view, b.view, into: c) }
    refuses("does not give c [2, 3, 5]") { try context.matmul(a.view, make(2, 4, 6).view, into: c) }
    refuses("bias has shape [3]; expected [5]") {
      try context.matmul(a.view, b.view, epilogue: Epilogue(bias: vector(3)), into: c)
    }
    refuses("residual has shape [1, 3, 5]") { try context.matmul(a.view, b.view, residual: make(3, 5).view, into: c) }
    refuses("residual needs unit stride") {
      try context.matmul(a.view, b.view, residual: make(2, 5, 3).view.transposed(), into: c)
    }
  }

  @Test func matmulChecksMemory() throws {
    let (a, b) = (try make(3, 4), try make(4, 5))
    let memory = try make(60)
    let c = memory.slice(axis: 0, 0..<15).reshaped(Shape(3, 5))
    refuses(.matmul, "c [3, 5] needs unit stride", untouched: memory) {
      try context.matmul(a.view, b.view, into: strided(memory, Shape(3, 5), Shape(1, 3)))
    }
    refuses(.matmul, "a overlaps", untouched: memory) {
      try context.matmul(memory.view.slice(axis: 0, 4..<16).reshaped(Shape(3, 4)), b.view, into: c)
    }
    refuses(.matmul, "b overlaps", untouched: memory) {
      try context.matmul(a.view, memory.view.slice(axis: 0, 14..<34).reshaped(Shape(4, 5)), into: c)
    }
    refuses(.matmul, "residual overlaps", untouched: memory) {
      try context.matmul(
        a.view, b.view, residual: memory.view.slice(axis: 0, 1..<16).reshaped(Shape(3, 5)), into: c)
    }
    refuses(.matmul, "overlap", untouched: memory) {
      try context.matmul(a.view, b.view, into: strided(memory, Shape(2, 3, 5), Shape(10, 5, 1)))
    }
  }

  // MARK: attention

  @Test func attentionChecksShapes() throws {
    let (q, kv, o) = (try make(6, 4, 8), try make(5, 2, 8), try make(6, 4, 8))
    let layout = AttentionLayout(queries: try Segments(lengths: [2, 4]), keys: try Segments(lengths: [3, 2]))
    func refuses(
      _ text: String, q queries: MutableTensor? = nil, k: MutableTensor? = nil, v: MutableTensor? = nil,
      layout other: AttentionLayout? = nil, mask: MutableTensor? = nil, at location: SourceLocation = #_sourceLocation
    ) {
      self.refuses(.attention, text, untouched: o, at: location) {
        try context.attention(
          queries: (queries ?? q).view, keys: (k ?? kv).view, values: (v ?? kv).view, layout: other ?? layout,
          mask: AttentionMask(additive: mask?.view), into: o)
      }
    }
    refuses("queries [6, 32] need rank 3", q: try make(6, 32))
    refuses("keys [5, 2, 8] need unit stride", k: try make(5, 8, 2).transposed())
    refuses("o has shape [6, 4, 8], queries has shape [6, 2, 8]", q: try make(6, 2, 8))
    refuses("values has shape [4, 2, 8]", v: try make(4, 2, 8))
    refuses("differ in head size", k: try make(5, 2, 7), v: try make(5, 2, 7))
    refuses("4 query heads are no multiple of 3", k: try make(5, 3, 8), v: try make(5, 3, 8))
    refuses("4 query heads are no multiple of 0", k: try make(5, 0, 8), v: try make(5, 0, 8))
    let three = try Segments(lengths: [1, 1, 4])
    refuses("different numbers of sequences", layout: AttentionLayout(queries: three, keys: layout.keys))
    let short = try Segments(lengths: [2, 3])
    refuses("the layout has 5 queries and 5 keys", layout: AttentionLayout(queries: short, keys: layout.keys))
    refuses("the layout has 6 queries and 6 keys", layout: AttentionLayout(layout.queries))
    refuses("mask [3] needs rank 2, 3 or 4", mask: try make(3))
    refuses("mask [4, 2] needs 3 keys", mask: try make(4, 2))
    refuses("mask [3, 3] needs 4 queries, or 1", mask: try make(3, 3))
    refuses("mask [3, 4, 3] needs 2 sequences, or 1", mask: try make(3, 4, 3))
    refuses("mask [2, 3, 4, 3] needs 4 heads, or 1", mask: try make(2, 3, 4, 3))
    refuses("mask [4, 3] needs 3 keys with unit stride", mask: try make(3, 4).transposed())
  }

  @Test func attentionChecksMemory() throws {
    let memory = try make(200)
    let o = memory.slice(axis: 0, 0..<48).reshaped(Shape(3, 2, 8))
    let near = memory.slice(axis: 0, 40..<88).reshaped(Shape(3, 2, 8))
    let apart = try make(3, 2, 8)
    let layout = AttentionLayout(try Segments(single: 3))
    for (text, q, k, v) in [
      ("queries", near, apart, apart), ("keys", apart, near, apart), ("values", apart, apart, near),
    ] {
      refuses(.attention, "\(text) overlaps the destination", untouched: memory) {
        try context.attention(queries: q.view, keys: k.view, values: v.view, layout: layout, into: o)
      }
    }
    refuses(.attention, "mask overlaps the destination", untouched: memory) {
      try context.attention(
        queries: apart.view, keys: apart.view, values: apart.view, layout: layout,
        mask: AttentionMask(additive: memory.view.slice(axis: 0, 47..<56).reshaped(Shape(3, 3))), into: o)
    }
    refuses(.attention, "overlap", untouched: memory) {
      try context.attention(
        queries: apart.view, keys: apart.view, values: apart.view, layout: layout,
        into: strided(memory, Shape(3, 2, 8), Shape(16, 4, 1)))
    }
  }

  // MARK: Rows

  @Test func rowOperationsCheckShapes() throws {
    let (x, y) = (try make(3, 4), try make(3, 4))
    let narrow = try make(3, 3)
    func refuses(
      _ operation: Quern.Operation, _ text: String, at location: SourceLocation = #_sourceLocation,
      _ body: () throws -> Void
    ) {
      self.refuses(operation, text, untouched: y, at: location, body)
    }
    let differs = "y has shape [3, 4], x has shape [3, 3]"
    refuses(.softmax, differs) { try context.softmax(narrow.view, into: y) }
    refuses(.layerNorm, differs) { try context.layerNorm(narrow.view, into: y) }
    refuses(.rmsNorm, differs) { try context.rmsNorm(narrow.view, into: y) }
    refuses(.activation, differs) { try context.activation(.relu, narrow.view, into: y) }
    refuses(.add, differs) { try context.add(narrow.view, x.view, into: y) }
    refuses(.multiply, differs) { try context.multiply(narrow.view, x.view, into: y) }
    refuses(.scale, differs) { try context.scale(narrow.view, by: 2, into: y) }
    refuses(.l2Normalize, differs) { try context.l2Normalize(narrow.view, into: y) }
    refuses(.softmax, "x [3, 4] needs unit stride") { try context.softmax(make(4, 3).view.transposed(), into: y) }
    refuses(.softmax, "mask has shape [2, 4]") { try context.softmax(x.view, mask: make(2, 4).view, into: y) }
    refuses(.softmax, "mask overlaps") { try context.softmax(x.view, mask: y.view, into: y) }
    refuses(.layerNorm, "residual has shape [1, 4]") {
      try context.layerNorm(x.view, residual: make(1, 4).view, into: y)
    }
    refuses(.layerNorm, "weight has shape [3]; expected [4]") {
      try context.layerNorm(x.view, weight: vector(3), into: y)
    }
    refuses(.layerNorm, "bias has shape [5]; expected [4]") { try context.layerNorm(x.view, bias: vector(5), into: y) }
    refuses(.rmsNorm, "weight has shape [5]; expected [4]") { try context.rmsNorm(x.view, weight: vector(5), into: y) }
    refuses(.rmsNorm, "residual has shape [3, 3]") { try context.rmsNorm(x.view, residual: narrow.view, into: y) }
    refuses(.add, "b has shape [2, 4]") { try context.add(x.view, make(2, 4).view, into: y) }
    refuses(.multiply, "b has shape [3, 3]") { try context.multiply(x.view, narrow.view, into: y) }
    refuses(.add, "b overlaps the destination without being it") {
      try context.add(x.view, y.view.rows(1..<2), into: y)
    }
    refuses(.meanPool, "segments hold 2 rows, x has 3") {
      try context.meanPool(x.view, segments: Segments(lengths: [1, 1]), into: y)
    }
    refuses(.meanPool, "y has shape [3, 4], the pooled rows has shape [2, 4]") {
      try context.meanPool(x.view, segments: Segments(lengths: [1, 2]), into: y)
    }
  }

  @Test func rowOperationsCheckMemory() throws {
    let memory = try make(6, 4)
    let (y, shifted) = (memory.rows(0..<3), memory.view.rows(1..<4))
    let text = "overlaps the destination without being it"
    refuses(.softmax, text, untouched: memory) { try context.softmax(shifted, into: y) }
    refuses(.layerNorm, text, untouched: memory) { try context.layerNorm(shifted, into: y) }
    refuses(.rmsNorm, text, untouched: memory) { try context.rmsNorm(shifted, into: y) }
    refuses(.activation, text, untouched: memory) { try context.activation(.gelu, shifted, into: y) }
    refuses(.add, text, untouched: memory) { try context.add(shifted, y.view, into: y) }
    refuses(.multiply, text, untouched: memory) { try context.multiply(shifted, y.view, into: y) }
    refuses(.scale, text, untouched: memory) { try context.scale(shifted, by: 2, into: y) }
    refuses(.l2Normalize, text, untouched: memory) { try context.l2Normalize(shifted, into: y) }
    refuses(.meanPool, "x overlaps the destination", untouched: memory) {
      try context.meanPool(shifted, segments: Segments(lengths: [1, 1, 1]), into: y)
    }
    let folded = strided(memory, Shape(3, 4), Shape(2, 1))
    refuses(.scale, "overlap", untouched: memory) { try context.scale(make(3, 4).view, by: 2, into: folded) }
  }

  @Test func idsOutsideTheTableAreNamedWithTheirPosition() throws {
    let (table, y) = (try make(5, 4), try make(3, 4))
    func refuses(_ ids: [Int32], _ text: String, at location: SourceLocation = #_sourceLocation) {
      self.refuses(.embedding, text, untouched: y, at: location) {
        try context.embedding(ids, table: table.view, into: y)
      }
    }
    refuses([0, 5, 1], "id 5 at position 1 is outside the table of 5 rows")
    refuses([0, 1, -1], "id -1 at position 2 is outside the table of 5 rows")
    refuses([.max, 7, 0], "id \(Int32.max) at position 0")
    refuses([0, 1], "y has shape [3, 4], the gathered rows has shape [2, 4]")
    self.refuses(.embedding, "table overlaps", untouched: table) {
      try context.embedding([0, 1], table: table.view, into: table.rows(3..<5))
    }
  }
}

/// A context on each backend that this build and machine have.
func availableContexts() throws -> [Context] {
  try ["reference", "blas", "multithreaded"].compactMap { name in
    if let reason = Backends.unavailability(of: name) {
      print("not run: \(name): \(reason)")
      return nil
    }
    return Context(backend: try Backends.make(name))
  }
}
