import Quern
import QuernModels

/// Memory of a U-Net's pass. Grows to the largest that it has met; a steady state allocates nothing.
public final class UNetWorkspace {
  let arena: Arena
  /// Sizes of the pass that everything below is for.
  private var images = 0
  private var size = ImageSize(0, 0)
  private var configuration: UNetConfiguration?

  /// Pixels with channels last, in and out.
  private(set) var input, output: MutableTensor
  /// For each skip `[below | skip]`: what the way up reads, whose halves the layers before and across write.
  private(set) var joints: [MutableTensor] = []
  private(set) var skips: [MutableTensor] = []
  private(set) var below: [MutableTensor] = []
  /// The result of the last block.
  private(set) var last: MutableTensor
  /// The pixels of each image, at the size of each level.
  private(set) var levels: [AttentionLayout] = []

  /// Of the timestep, f32.
  var timesteps: [Float] = []
  private(set) var time, hidden, embedding, projected: MutableTensor

  public init() throws(QuernError) {
    let empty = try MutableTensor(zeros: Shape(0))
    arena = try Arena()
    (input, output, last) = (empty, empty, empty)
    (time, hidden, embedding, projected) = (empty, empty, empty, empty)
  }

  /// Bytes that it holds.
  public var byteCount: Int { arena.byteCount + rest }

  /// Those that passes have used.
  package var peakByteCount: Int { arena.peakByteCount + rest }

  private var rest: Int {
    4 * (output.shape.count + time.shape.count + hidden.shape.count + embedding.shape.count + projected.shape.count)
  }

  /// Makes room for so many images of a size.
  func prepare(
    images: Int, _ size: ImageSize, _ c: UNetConfiguration, _ plan: UNetPlan, _ precision: DataType
  ) throws(QuernError) {
    guard images != self.images || size != self.size || c != configuration || input.dataType != precision else {
      return
    }
    configuration = nil
    let need = UNetSizes(c, plan, images: images, size)
    try arena.reset(capacity: need.activations, precision)
    func image(_ level: Int, _ channels: Int) throws(QuernError) -> MutableTensor {
      try arena.take(
        batch: images, height: need.levels[level].height, width: need.levels[level].width, channels: channels)
    }
    input = try image(0, c.inChannels)
    joints.removeAll(keepingCapacity: true)
    skips.removeAll(keepingCapacity: true)
    below.removeAll(keepingCapacity: true)
    for joint in need.joints {
      let tensor = try image(joint.level, joint.below + joint.skip)
      joints.append(tensor)
      below.append(tensor.columns(0..<joint.below))
      skips.append(tensor.columns(joint.below..<joint.below + joint.skip))
    }
    last = try image(0, c.blockOutChannels[0])
    levels.removeAll(keepingCapacity: true)
    for level in need.levels { levels.append(try attentionLayout(batch: images, pixels: level.height * level.width)) }

    func rows(_ width: Int) throws(QuernError) -> MutableTensor { try MutableTensor(zeros: Shape(images, width)) }
    output = try MutableTensor(zeros: Shape(images, size.height, size.width, c.outChannels))
    (time, hidden) = (try rows(c.blockOutChannels[0]), try rows(c.timeEmbedDim))
    (embedding, projected) = (try rows(c.timeEmbedDim), try rows(plan.timeWidth))
    timesteps = [Float](repeating: 0, count: images)
    (self.images, self.size, configuration) = (images, size, c)
  }
}

/// The tensors of a pass by size.
struct UNetSizes {
  /// Height and width at each level.
  let levels: [ImageSize]
  /// In the order of the way down.
  let joints: [(level: Int, below: Int, skip: Int)]
  /// Elements of an arena.
  let activations: Int
  /// Bytes beside them.
  let rest: Int

  /// Extents whose products are far from any limit, with the channels that a configuration may have.
  static func check(images: Int, _ size: ImageSize) throws(QuernError) {
    guard (1...1 << 12).contains(images), min(size.height, size.width) > 0, max(size.height, size.width) <= 1 << 14
    else {
      throw .invalidShape("\(images) images of \(size); a pass takes 1 to 4096 of at most 16384x16384")
    }
  }

  /// - Precondition: ``check(images:_:)`` has passed.
  init(_ c: UNetConfiguration, _ plan: UNetPlan, images: Int, _ size: ImageSize) {
    var levels = [size]
    for _ in 1..<c.blocks {
      let above = levels[levels.count - 1]
      func half(_ extent: Int) -> Int { Downsample2D.extent(extent, padding: c.downsamplePadding) }
      levels.append(ImageSize(height: half(above.height), width: half(above.width)))
    }
    func pixels(_ level: Int) -> Int { images * levels[level].height * levels[level].width }

    // The way up takes the skips from the last on.
    var skips = [(level: Int, channels: Int)]()
    skips.append((0, c.blockOutChannels[0]))
    for (level, block) in plan.down.enumerated() {
      skips += block.layers.map { (level, $0.resnet.outputs) }
      if block.resamples { skips.append((level + 1, block.channels)) }
    }
    let readers = plan.up.flatMap(\.layers).reversed()
    let joints = zip(skips, readers).map { skip, reader in
      (level: skip.level, below: reader.resnet.inputs - skip.channels, skip: skip.channels)
    }

    func scratch(_ layer: UNetPlan.Layer, _ level: Int) -> Int {
      max(layer.resnet.scratch(pixels: pixels(level)), layer.attention?.scratch(pixels: pixels(level)) ?? 0)
    }
    var most = 0
    for (level, block) in plan.down.enumerated() {
      for layer in block.layers { most = max(most, scratch(layer, level)) }
    }
    let (deepest, widest) = (c.blocks - 1, c.blockOutChannels[c.blocks - 1])
    let middle = Arena.size(pixels(deepest).saturatingMultiply(widest))
    for layer in plan.middle {
      most = max(most, middle.saturatingMultiply(max(plan.middle.count - 1, 1)).saturatingAdd(scratch(layer, deepest)))
    }
    for (index, block) in plan.up.enumerated() {
      let level = deepest - index
      let result = block.resamples ? Arena.size(pixels(level).saturatingMultiply(block.channels)) : 0
      for (place, layer) in block.layers.enumerated() {
        let held = place == block.layers.count - 1 ? result : 0
        most = max(most, held.saturatingAdd(scratch(layer, level)))
      }
    }
    var activations = Arena.size(pixels(0).saturatingMultiply(c.inChannels))
      .saturatingAdd(Arena.size(pixels(0).saturatingMultiply(c.blockOutChannels[0]))).saturatingAdd(most)
    for joint in joints {
      activations = activations.saturatingAdd(
        Arena.size(pixels(joint.level).saturatingMultiply(joint.below + joint.skip)))
    }
    (self.levels, self.joints, self.activations) = (levels, joints, activations)
    let rows = images.saturatingMultiply(c.blockOutChannels[0] + 2 * c.timeEmbedDim + plan.timeWidth)
    rest = pixels(0).saturatingMultiply(c.outChannels).saturatingAdd(rows).saturatingMultiply(4)
  }
}

extension UNetPlan {
  /// Elements of the time embeddings of all layers.
  var timeWidth: Int { layers.reduce(0) { $0 + $1.resnet.timeWidth } }
}
