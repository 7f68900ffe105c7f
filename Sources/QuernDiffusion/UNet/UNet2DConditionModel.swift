import Quern
import QuernModels

/// The U-Net of latent diffusion (Ronneberger et al., arXiv 1505.04597; Rombach et al., arXiv 2112.10752): Stable Diffusion 1.x and 2.x,
/// SDXL, their Turbo forms, LCM and whatever else is a `UNet2DConditionModel` of diffusers; see ``UNetConfiguration``.
///
/// ```swift
/// let unet = try UNet2DConditionModel(directory: "stable-diffusion-v1-5/unet", context: Context())
/// let conditioning = try unet.conditioning(prompt: hiddenStates)   // once
/// try unet.forward(latents, timestep: 981, conditioning: conditioning, workspace: workspace, into: noise)   // each step
/// ```
///
/// Immutable and `Sendable`: one model serves any number of tasks, each with a ``UNetWorkspace`` of its own.
public final class UNet2DConditionModel: Sendable {
  public let configuration: UNetConfiguration
  public let context: Context
  /// How matrices and activations are stored; norms, biases, time embeddings and results are f32.
  public let precision: DataType
  private let plan: UNetPlan
  private let once: UNetConditioningLayers
  private let convIn, convOut: ConvolutionLayer
  private let normOut: GroupNorm
  private let time: TimestepMLP
  /// What every layer adds of the time embedding, in one product.
  private let timeProjections: Linear
  private let down, up: [Block]
  private let middle: [Layer]

  private struct Block: Sendable {
    let layers: [Layer]
    let resampler: Resampler?
  }

  private enum Resampler: Sendable {
    case down(Downsample2D)
    case up(ConvolutionLayer)
  }

  private struct Layer: Sendable {
    let resnet: ResnetBlock2D
    /// The columns of its time embedding.
    let time: Range<Int>
    let attention: Attention?
  }

  private enum Attention: Sendable {
    /// With the place of its keys and values among those of all.
    case transformer(Transformer2D, first: Int)
    case spatial(SpatialAttention)
  }

  /// - Parameters:
  ///   - directory: the `unet` folder of a diffusers directory: `config.json` and safetensors weights.
  ///   - context: packs the weights and runs the model.
  ///   - precision: the storage of matrices and activations.
  ///   - adapters: added to the weights.
  /// - Throws: ``ModelError`` naming file, field and offset; ``QuernError`` for memory that cannot be had.
  public convenience init(
    directory: String, context: Context, precision: DataType = .f32, adapters: [DiffusionLoRA] = []
  ) throws {
    try self.init(
      UNetConfiguration(HubConfig(directory: directory)), source: ComponentFiles.source(directory), file: directory,
      context: context, precision: precision, adapters: adapters)
  }

  /// - Parameter source: weights named as in diffusers.
  public init(
    _ configuration: UNetConfiguration, source: any TensorSource, file: String, context: Context,
    precision: DataType = .f32, adapters: [DiffusionLoRA] = []
  ) throws {
    let plan = UNetPlan(configuration)
    let source: any TensorSource =
      adapters.isEmpty
      ? source
      : try AdaptedSource(source, adapters, part: .unet, context: context, aliases: plan.originalNames())
    let weights = try Weights(source, file: file, probe: "conv_in.weight")
    let reader = LayerReader(weights, precision: precision, context: context)
    let channels = configuration.blockOutChannels
    (self.configuration, self.context, self.precision, self.plan) = (configuration, context, precision, plan)
    once = try UNetConditioningLayers(configuration, reader)
    func around(_ kernel: Int) -> Convolution { Convolution(padding: .init(integerLiteral: kernel / 2)) }
    convIn = try reader.convolution(
      "conv_in", inputs: configuration.inChannels, outputs: channels[0], kernel: configuration.convInKernel,
      around(configuration.convInKernel))
    convOut = try reader.convolution(
      "conv_out", inputs: channels[0], outputs: configuration.outChannels, kernel: configuration.convOutKernel,
      around(configuration.convOutKernel))
    normOut = try reader.groupNorm(
      "conv_norm_out", channels: channels[0],
      GroupNorm.Kind(groups: configuration.normNumGroups, epsilon: configuration.normEps), activation: .silu)
    time = try TimestepMLP("time_embedding", inputs: channels[0], outputs: configuration.timeEmbedDim, reader)
    timeProjections = try reader.linear(
      plan.layers.map { ("\($0.resnet.name).time_emb_proj", $0.resnet.timeWidth) },
      inputs: configuration.timeEmbedDim)

    var (column, place) = (0, 0)
    func layer(_ plan: UNetPlan.Layer) throws -> Layer {
      let columns = column..<column + plan.resnet.timeWidth
      column = columns.upperBound
      let attention: Attention? =
        switch plan.attention {
        case nil: nil
        case .spatial(let spatial): .spatial(try SpatialAttention(spatial, reader))
        case .transformer(let transformer): .transformer(try Transformer2D(transformer, reader), first: place)
        }
      if case .transformer(let transformer) = plan.attention { place += transformer.promptAttentions }
      return Layer(resnet: try ResnetBlock2D(plan.resnet, reader), time: columns, attention: attention)
    }
    down = try plan.down.map { block in
      Block(
        layers: try block.layers.map(layer),
        resampler: !block.resamples
          ? nil
          : .down(
            try Downsample2D(
              "\(block.name).downsamplers.0", inputs: block.channels, outputs: block.channels,
              padding: configuration.downsamplePadding, reader)))
    }
    middle = try plan.middle.map(layer)
    up = try plan.up.map { block in
      Block(
        layers: try block.layers.map(layer),
        resampler: !block.resamples
          ? nil
          : .up(
            try reader.convolution(
              "\(block.name).upsamplers.0.conv", inputs: block.channels, outputs: block.channels, .enlarging)))
    }
  }

  /// Computes what every step of a run reads of its prompts: once for all of them.
  ///
  /// - Parameters:
  ///   - prompt: `[images, tokens, width]`, the hidden states of a text encoder; with guidance, those of the empty or negative prompts
  ///     and then those of the prompts. May be missing for a model that attends to none.
  ///   - textEmbeds: `[images, width]`, the pooled embeddings of the prompts; for a model with ``UNetConfiguration/textTime``.
  ///   - timeIDs: `[images, 6]`, original height and width, top and left of the crop, target height and width; likewise.
  ///   - classes: for a model with ``UNetConfiguration/classEmbedding``.
  ///   - guidanceScale: for a model with ``UNetConfiguration/timeCondProjDim``, which takes it in place of guidance.
  ///   - images: where there is no prompt.
  /// - Throws: ``QuernError`` for what the model does not take, or lacks.
  public func conditioning(
    prompt: TensorView? = nil, textEmbeds: TensorView? = nil, timeIDs: TensorView? = nil, classes: UNetClasses? = nil,
    guidanceScale: Double? = nil, images: Int? = nil
  ) throws(QuernError) -> UNetConditioning {
    let transformers = plan.promptWidths
    if let prompt {
      let widths = configuration.encoderHidDim.map { [$0] } ?? transformers
      guard prompt.shape.rank == 3, widths.allSatisfy({ $0 == prompt.shape[2] }), prompt.shape.count > 0 else {
        throw .invalidShape("the prompt is \(prompt.shape); the model takes [images, tokens, \(widths.first ?? 0)]")
      }
    } else if !transformers.isEmpty {
      throw .invalidShape("the model attends to a prompt, and there is none")
    }
    guard let images = prompt?.shape[0] ?? images, images > 0 else {
      throw .invalidShape("without a prompt the number of images is needed, at least 1")
    }
    var (tokens, keysValues) = (Segments(), [MutableTensor]())
    if let prompt, !transformers.isEmpty {
      tokens = try Segments(lengths: [Int](repeating: prompt.shape[1], count: images))
      let rows = try once.tokens(prompt, context)
      for layer in layers {
        guard case .transformer(let transformer, _) = layer.attention else { continue }
        try transformer.appendKeysValues(of: rows, to: &keysValues, dataType: precision, context)
      }
    }
    return UNetConditioning(
      self, images: images, tokens: tokens, keysValues: keysValues,
      added: try once.added(classes, textEmbeds: textEmbeds, timeIDs: timeIDs, images: images, context),
      guidance: try once.guidance(guidanceScale, images: images, context))
  }

  private var layers: [Layer] { down.flatMap(\.layers) + middle + up.flatMap(\.layers) }

  /// One step: what the model makes of noisy latents, its prediction of noise, velocity or sample.
  ///
  /// - Parameters:
  ///   - sample: `[batch, inChannels, height, width]`, or channels last; of any data type. Each image of the conditioning has the latents of
  ///     its number modulo the batch, so that those with and without the prompt share them.
  ///   - timestep: need not be whole.
  ///   - conditioning: of this model.
  ///   - layout: of the sample and of y.
  ///   - y: `[conditioning.images, outChannels, height, width]`, or channels last; shares no memory with the sample.
  /// - Throws: ``QuernError`` for shapes that do not fit, and for memory that cannot be had.
  public func forward(
    _ sample: TensorView, timestep: Double, conditioning: UNetConditioning, layout: ImageLayout = .channelsFirst,
    workspace: UNetWorkspace, into y: MutableTensor
  ) throws(QuernError) {
    let images = conditioning.images
    guard conditioning.model === self else { throw .invalidShape("the conditioning is of another model") }
    guard sample.shape.rank == 4 else { throw .invalidShape("the sample is \(sample.shape); it has 4 axes") }
    let pixels = layout == .channelsLast ? sample : sample.permuted([0, 2, 3, 1])
    let (batch, size) = (pixels.shape[0], ImageSize(height: pixels.shape[1], width: pixels.shape[2]))
    try UNetSizes.check(images: images, size)
    guard pixels.shape[3] == configuration.inChannels, batch > 0, images % batch == 0 else {
      throw .invalidShape(
        "the sample is \(sample.shape) (\(layout.rawValue)); the model has \(configuration.inChannels) channels, the "
          + "conditioning \(images) images")
    }
    guard y.shape == layout.shape(batch: images, channels: configuration.outChannels, size) else {
      throw .invalidShape(
        "y is \(y.shape), the result \(layout.shape(batch: images, channels: configuration.outChannels, size))")
    }
    try workspace.prepare(images: images, size, configuration, plan, precision)
    let mark = workspace.arena.mark
    defer { workspace.arena.release(mark) }
    for first in stride(from: 0, to: images, by: batch) {
      try context.copy(pixels, into: workspace.input.rows(first..<first + batch))
    }
    try embed(timestep, conditioning, workspace)
    try run(conditioning, workspace)
    try normOut(workspace.last.view, into: workspace.last, context)
    if layout == .channelsLast { return try convOut(workspace.last.view, into: y, context) }
    try convOut(workspace.last.view, into: workspace.output, context)
    try context.copy(workspace.output.view.permuted([0, 3, 1, 2]), into: y)
  }

  /// `workspace.projected`: what the layers add of the timestep.
  private func embed(
    _ timestep: Double, _ conditioning: UNetConditioning, _ workspace: UNetWorkspace
  ) throws(QuernError) {
    for image in workspace.timesteps.indices { workspace.timesteps[image] = Float(timestep) }
    let (embedding, frequencies) = (workspace.embedding, workspace.time)
    try configuration.timesteps(size: configuration.blockOutChannels[0]).write(workspace.timesteps, into: frequencies)
    if let guidance = conditioning.guidance { try context.add(frequencies.view, guidance.view, into: frequencies) }
    try time(
      frequencies.view, hidden: workspace.hidden, residual: conditioning.added?.view, into: embedding, context)
    try context.activation(.silu, embedding.view, into: embedding)
    try timeProjections(embedding.view, into: workspace.projected, context)
  }

  /// From `workspace.input` to `workspace.last`.
  private func run(_ conditioning: UNetConditioning, _ workspace: UNetWorkspace) throws(QuernError) {
    let arena = workspace.arena
    let (skips, below) = (workspace.skips, workspace.below)
    var next = 0
    try convIn(workspace.input.view, into: skips[0], context)
    for (level, block) in down.enumerated() {
      for layer in block.layers {
        try run(layer, skips[next].view, into: skips[next + 1], level, conditioning, workspace)
        next += 1
      }
      if case .down(let resampler) = block.resampler {
        try resampler(skips[next].view, into: skips[next + 1], context)
        next += 1
      }
    }

    var hidden = skips[next]
    let mark = arena.mark
    for (place, layer) in middle.enumerated() {
      // A convolution does not write beside what it reads.
      let result = place > 0 && place == middle.count - 1 ? below[next] : try arena.take(hidden.shape)
      try run(layer, hidden.view, into: result, down.count - 1, conditioning, workspace)
      hidden = result
    }
    if middle.count < 2 { try context.copy(hidden.pixels.view, into: below[next].pixels) }
    arena.release(mark)

    for (index, block) in up.enumerated() {
      let level = up.count - 1 - index
      for (place, layer) in block.layers.enumerated() {
        let joint = workspace.joints[next].view
        let result = next > 0 ? below[next - 1] : workspace.last
        if place == block.layers.count - 1, case .up(let resampler) = block.resampler {
          let mark = arena.mark
          defer { arena.release(mark) }
          let smaller = try arena.take(
            batch: joint.shape[0], height: joint.shape[1], width: joint.shape[2], channels: resampler.outputs)
          try run(layer, joint, into: smaller, level, conditioning, workspace)
          try resampler(smaller.view, into: result, context)
        } else {
          try run(layer, joint, into: result, level, conditioning, workspace)
        }
        next -= 1
      }
    }
  }

  private func run(
    _ layer: Layer, _ x: TensorView, into y: MutableTensor, _ level: Int, _ conditioning: UNetConditioning,
    _ workspace: UNetWorkspace
  ) throws(QuernError) {
    let images = workspace.levels[level]
    try layer.resnet(x, time: workspace.projected.view.columns(layer.time), into: y, workspace.arena, context)
    switch layer.attention {
    case nil: break
    case .spatial(let attention): try attention(y.view, images: images, into: y, workspace.arena, context)
    case .transformer(let transformer, let first):
      let sequences = Transformer2D.Sequences(
        images: images, prompts: AttentionLayout(queries: images.queries, keys: conditioning.tokens),
        keysValues: conditioning.keysValues, first: first)
      try transformer(y.view, sequences, into: y, workspace.arena, context)
    }
  }
}
