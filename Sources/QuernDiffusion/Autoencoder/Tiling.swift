import Quern

/// Working on a large picture piece by piece: memory is that of a piece, the result close to that of the whole. Pieces overlap and go
/// over into each other.
public struct Tiling: Sendable, Equatable {
  /// Height and width of a piece of a picture.
  public var sampleSize: Int
  /// The share of it that neighbours have in common.
  public var overlap: Double

  public init(sampleSize: Int, overlap: Double = 0.25) { (self.sampleSize, self.overlap) = (sampleSize, overlap) }
}

/// One way through an autoencoder, in pieces where there are to be some.
struct TiledPass {
  /// How pieces go over into each other.
  enum Rule {
    /// Each goes over from the one above and then from the one on its left, linearly: `AutoencoderKL` of diffusers.
    case linear
    /// Each is laid over what is there, behind a mask that grows from both edges: `AutoencoderTiny` of diffusers.
    case masked
  }

  typealias Body = (TensorView, MutableTensor) throws -> Void

  let workspace: AutoencoderWorkspace
  let rule: Rule
  /// Height and width of a piece before, and after; nil for no pieces.
  private let from, to: Int?
  /// From one piece to the next, and what two have in common.
  private let stepFrom, stepTo, blend: Int

  /// - Parameter isEnlarging: from latents to pictures, in place of from pictures to latents.
  init(
    _ tiling: Tiling?, factor: Int, isEnlarging: Bool, rule: Rule, workspace: AutoencoderWorkspace
  ) throws(QuernError) {
    (self.workspace, self.rule) = (workspace, rule)
    guard let tiling else {
      (from, to, stepFrom, stepTo, blend) = (nil, nil, 0, 0, 0)
      return
    }
    let (size, overlap) = (tiling.sampleSize, tiling.overlap)
    let latents = size / factor
    func share(_ extent: Int, _ part: Double) -> Int { Int(Double(extent) * part) }
    // Where these do not come out even, pieces of picture and latents would not lie at the same place.
    guard size > 0, size <= 1 << 20, overlap >= 0, overlap <= 0.5, latents * factor == size,
      share(latents, overlap) + share(latents, 1 - overlap) == latents,
      share(size, overlap) == factor * share(latents, overlap),
      share(size, 1 - overlap) == factor * share(latents, 1 - overlap), rule == .linear || share(latents, overlap) != 1
    else {
      throw .invalidSetting(
        name: "tiling", value: "\(size) with an overlap of \(overlap)",
        expected: "a multiple of \(factor) of which the overlap, up to a half, is one too, and for masks more than one latent")
    }
    let steps = (share(latents, 1 - overlap), share(size, 1 - overlap))
    (from, to) = isEnlarging ? (latents, size) : (size, latents)
    (stepFrom, stepTo) = isEnlarging ? steps : (steps.1, steps.0)
    blend = share(isEnlarging ? size : latents, overlap)
  }

  /// Runs `body` on the pieces of x, `[batch, height, width, channels]`, and puts what it makes together in y.
  func callAsFunction(_ x: TensorView, into y: MutableTensor, proceed: () throws -> Void, _ body: Body) throws {
    guard let from, let to, max(x.shape[1], x.shape[2]) > from else {
      try proceed()
      return try body(x, y)
    }
    let (batch, channels) = (x.shape[0], y.shape[3])
    let columns = (x.shape[2] + stepFrom - 1) / stepFrom
    let isLinear = rule == .linear
    let above = try workspace.tensor(.above, Shape(isLinear ? columns : 0, batch * blend, to, channels))
    let left = try workspace.tensor(.left, Shape(batch, to, isLinear ? blend : 0, channels))
    for row in 0..<(x.shape[1] + stepFrom - 1) / stepFrom {
      for column in 0..<columns {
        try proceed()
        let (top, side) = (row * stepFrom, column * stepFrom)
        let input = try workspace.tensor(
          .input, Shape(batch, min(from, x.shape[1] - top), min(from, x.shape[2] - side), x.shape[3]))
        Self.copy(x.slice(axis: 1, top..<top + input.shape[1]).slice(axis: 2, side..<side + input.shape[2]), to: input)
        let (height, width) = (
          min(to, y.shape[1] - row * stepTo), min(to, y.shape[2] - column * stepTo)
        )
        let tile = try workspace.tensor(.tile, Shape(batch, height, width, channels))
        try body(input.view, tile)
        let (rows, columns) = (row * stepTo, column * stepTo)
        switch rule {
        case .linear:
          let strip = above.rows(column..<column + 1).reshaped(Shape(batch, blend, to, channels))
          if row > 0 { goOver(from: strip.view, to: tile, axis: 1) }
          if column > 0 { goOver(from: left.view, to: tile, axis: 2) }
          if width >= blend {
            Self.copy(tile.view.slice(axis: 2, width - blend..<width), to: left.slice(axis: 1, 0..<height))
          }
          if height >= blend {
            Self.copy(tile.view.slice(axis: 1, height - blend..<height), to: strip.slice(axis: 2, 0..<width))
          }
          let kept = ImageSize(min(height, stepTo), min(width, stepTo))
          Self.copy(
            tile.view.slice(axis: 1, 0..<kept.height).slice(axis: 2, 0..<kept.width),
            to: y.slice(axis: 1, rows..<rows + kept.height).slice(axis: 2, columns..<columns + kept.width))
        case .masked:
          layOver(
            tile, on: y.slice(axis: 1, rows..<rows + height).slice(axis: 2, columns..<columns + width),
            hasUpper: row > 0, hasLeft: column > 0)
        }
      }
    }
  }

  /// The first rows or columns of a tile become those of its neighbour, and go over into its own.
  private func goOver(from neighbour: TensorView, to tile: MutableTensor, axis: Int) {
    let extent = min(tile.shape[axis], blend)
    let length = tile.shape[3]
    for image in 0..<tile.shape[0] {
      for row in 0..<(axis == 1 ? extent : tile.shape[1]) {
        for column in 0..<(axis == 2 ? extent : tile.shape[2]) {
          let place = axis == 1 ? row : column
          let share = Double(place) / Double(extent)
          let target = tile.pointer + (image * tile.strides[0] + row * tile.strides[1] + column * tile.strides[2])
          // A tile with fewer rows than two have in common meets the neighbour's last ones.
          let (otherRow, otherColumn) = axis == 1 ? (blend - extent + row, column) : (row, blend - extent + column)
          let source =
            neighbour.pointer
            + (image * neighbour.strides[0] + otherRow * neighbour.strides[1] + otherColumn * neighbour.strides[2])
          for channel in 0..<length {
            target[channel] = Float(Double(source[channel]) * (1 - share) + Double(target[channel]) * share)
          }
        }
      }
    }
  }

  private func layOver(_ tile: MutableTensor, on y: MutableTensor, hasUpper: Bool, hasLeft: Bool) {
    func mask(_ place: Int, _ goesOver: Bool) -> Double {
      goesOver && blend > 0 ? min(Double(place) / Double(blend - 1), 1) : 1
    }
    for image in 0..<tile.shape[0] {
      for row in 0..<tile.shape[1] {
        for column in 0..<tile.shape[2] {
          let share = mask(row, hasUpper) * mask(column, hasLeft)
          let source = tile.pointer + (image * tile.strides[0] + row * tile.strides[1] + column * tile.strides[2])
          let target = y.pointer + (image * y.strides[0] + row * y.strides[1] + column * y.strides[2])
          for channel in 0..<tile.shape[3] {
            let own = Double(source[channel])
            target[channel] = Float(share == 1 ? own : share * own + (1 - share) * Double(target[channel]))
          }
        }
      }
    }
  }

  /// Rows of f32 images, each without gaps along its width.
  private static func copy(_ x: TensorView, to y: MutableTensor) {
    let length = x.shape[2] * x.shape[3]
    for image in 0..<x.shape[0] {
      for row in 0..<x.shape[1] {
        (y.pointer + (image * y.strides[0] + row * y.strides[1])).update(
          from: x.pointer + (image * x.strides[0] + row * x.strides[1]), count: length)
      }
    }
  }
}
