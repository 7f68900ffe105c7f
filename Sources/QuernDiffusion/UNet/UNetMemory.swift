import Quern
import QuernModels

extension UNet2DConditionModel {
  /// The memory that a model takes with one ``UNetConditioning`` and one ``UNetWorkspace``, from the headers of its files alone.
  ///
  /// - Parameters:
  ///   - directory: as for ``init(directory:context:precision:)``, and `precision` too.
  ///   - images: of a pass: twice the batch with guidance.
  ///   - height: of the latents, and `width` too.
  ///   - tokens: of each prompt.
  /// - Throws: ``ModelError``; ``QuernError`` for sizes that ``forward(_:timestep:conditioning:layout:workspace:into:)`` refuses.
  public static func memoryNeed(
    directory: String, precision: DataType = .f32, images: Int, height: Int, width: Int, tokens: Int = 77
  ) throws -> MemoryNeed {
    let configuration = try UNetConfiguration(HubConfig(directory: directory))
    var need = try configuration.workspaceNeed(
      precision: precision, images: images, ImageSize(height: height, width: width), tokens: tokens)
    try need.addWeights(of: ComponentFiles.source(directory), precision: precision)
    return need
  }

  /// The same for this model, without its weights.
  public func workspaceNeed(images: Int, height: Int, width: Int, tokens: Int = 77) throws(QuernError) -> MemoryNeed {
    try configuration.workspaceNeed(
      precision: precision, images: images, ImageSize(height: height, width: width), tokens: tokens)
  }
}

extension UNetConfiguration {
  /// Bytes of a workspace, and of a conditioning.
  func workspaceNeed(
    precision: DataType, images: Int, _ size: ImageSize, tokens: Int
  ) throws(QuernError) -> MemoryNeed {
    try UNetSizes.check(images: images, size)
    let plan = UNetPlan(self)
    let sizes = UNetSizes(self, plan, images: images, size)
    var need = MemoryNeed()
    need.workspace = sizes.activations.saturatingMultiply(precision.size).saturatingAdd(sizes.rest)
    let keysValues = plan.layers.reduce(0) { sum, layer in
      guard case .transformer(let transformer) = layer.attention else { return sum }
      return sum + transformer.promptAttentions * 2 * transformer.channels
    }
    need.cache = images.saturatingMultiply(max(tokens, 0)).saturatingMultiply(keysValues)
      .saturatingMultiply(precision.size)
    return need
  }
}

extension MemoryNeed {
  /// The tensors of a file: matrices as `precision`, vectors as f32.
  package mutating func addWeights(of source: some TensorSource, precision: DataType) throws(ModelError) {
    for name in source.tensorNames {
      let info = try source.info(name)
      let bytes = info.elementCount.saturatingMultiply(info.shape.count < 2 ? 4 : precision.size)
      weights = weights.saturatingAdd(bytes)
      // A convolution is read, put in the order of its products and packed.
      loading = max(loading, bytes.saturatingMultiply(info.shape.count == 4 ? 2 : 1))
    }
  }
}
