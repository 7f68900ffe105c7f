import Quern
import Testing

/// Images, gates and second outputs that do not fit are refused before anything is written.
@Suite struct ImageErrorTests {
  private let context = Context(backend: ReferenceBackend())

  private func make(_ shape: Shape, _ type: DataType = .f32) throws -> MutableTensor {
    try MutableTensor(zeros: shape, dataType: type)
  }

  @Test func poolingChecksWindowsAndShapes() throws {
    let (x, y) = (try make(Shape(1, 4, 4, 3)), try make(Shape(1, 2, 2, 3)))
    let pair = PoolWindow(size: ImageSize(2, 2))
    refuses(.maxPool, "rank 2") { try context.maxPool(x.view.reshaped(Shape(4, 12)), window: pair, into: y) }
    refuses(.maxPool, "expected [1, 2, 2, 3]") { try context.maxPool(x.view, window: pair, into: x) }
    refuses(.averagePool, "at least 1") {
      try context.averagePool(x.view, window: PoolWindow(size: ImageSize(0, 2)), into: y)
    }
    refuses(.averagePool, "half") {
      try context.averagePool(
        x.view, window: PoolWindow(size: ImageSize(2, 2), padding: ImageSize(2, 0)), into: y)
    }
    refuses(.averagePool, "dilation") {
      try context.averagePool(
        x.view, window: PoolWindow(size: ImageSize(2, 2), dilation: ImageSize(2, 2)), into: y)
    }
    refuses(.maxPool, "too small") { try context.maxPool(x.view, window: PoolWindow(size: ImageSize(9, 9)), into: y) }
    refuses(.averagePool, "no pixels") {
      try context.averagePool(make(Shape(1, 0, 4, 3)).view, window: PoolWindow(size: ImageSize(1, 1)), into: y)
    }
    refuses(.maxPool, "overlaps") {
      let memory = try make(Shape(60))
      let view = memory.reinterpreted(offset: 0, shape: x.shape, strides: x.strides).view
      try context.maxPool(
        view, window: pair, into: memory.reinterpreted(offset: 40, shape: y.shape, strides: y.strides))
    }
  }

  @Test func resizeAndPadCheckShapes() throws {
    let x = try make(Shape(1, 3, 4, 2))
    refuses(.resize, "expected [1, 6, 8, 2]") {
      try context.resize(x.view, by: .nearest, into: make(Shape(2, 6, 8, 2)))
    }
    refuses(.resize, "copies elements") {
      try context.resize(x.view, by: .nearest, into: make(Shape(1, 6, 8, 2), .bf16))
    }
    refuses(.pad, "expected [1, 4, 4, 2]") {
      try context.pad(x.view, margins: ImageMargins(top: 1), into: make(Shape(1, 5, 4, 2)))
    }
    refuses(.pad, "not negative") {
      try context.pad(x.view, margins: ImageMargins(top: -1), into: make(Shape(1, 2, 4, 2)))
    }
    refuses(.pad, "smaller than the image") {
      try context.pad(x.view, margins: ImageMargins(top: 3), border: .reflect, into: make(Shape(1, 6, 4, 2)))
    }
    refuses(.pad, "copies elements") {
      try context.pad(x.view, margins: ImageMargins(), into: make(x.shape, .f16))
    }
  }

  @Test func groupNormChecksGroupsAndParameters() throws {
    let x = try make(Shape(1, 3, 4, 6))
    refuses(.groupNorm, "do not divide") { try context.groupNorm(x.view, groups: 4, into: x) }
    refuses(.groupNorm, "do not divide") { try context.groupNorm(x.view, groups: 0, into: x) }
    refuses(.groupNorm, "expected [6]") {
      try context.groupNorm(x.view, groups: 2, weight: Tensor([1, 2]), into: x)
    }
    refuses(.groupNorm, "they must agree") { try context.groupNorm(x.view, groups: 2, into: make(Shape(1, 4, 3, 6))) }
  }

  @Test func sumsGatesAndPowersAreChecked() throws {
    let (x, y, z) = (try make(Shape(3, 4)), try make(Shape(3, 4)), try make(Shape(3, 4)))
    refuses(.rmsNorm, "without a residual") { try context.rmsNorm(x.view, sum: z, into: y) }
    refuses(.rmsNorm, "sum overlaps") { try context.rmsNorm(x.view, residual: z.view, sum: y, into: y) }
    refuses(.layerNorm, "they must agree") {
      try context.layerNorm(x.view, residual: z.view, sum: make(Shape(4, 3)), into: y)
    }
    refuses(.gated, "value has shape") {
      try context.gated(.silu, gate: x.view, value: make(Shape(1, 4)).view, into: y)
    }
    refuses(.repu, "at least 1") { try context.repu(x.view, power: 0, into: y) }
  }
}
