import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// CLIP's towers and ViT against `transformers` (tools/fixtures/tiny_images.py), and what they say to files that do not fit.
@Suite struct ImageEncoderTests {
  private static func directory(_ name: String) -> String { Fixture.path("images/\(name)") }

  private static func expected(_ name: String, _ tensor: String) throws -> [Float] {
    try Safetensors(path: "\(directory(name))/expected.safetensors").readFloat32(tensor)
  }

  private static func pixels(_ name: String) throws -> Tensor {
    let inputs = try Safetensors(path: "\(directory(name))/inputs.safetensors")
    return try Tensor(inputs.readFloat32("pixel_values"), shape: Shape(checking: inputs.info("pixel_values").shape))
  }

  /// The texts of a fixture without their padding.
  private static func texts(_ name: String) throws -> EncoderBatch {
    let inputs = try Safetensors(path: "\(directory(name))/inputs.safetensors")
    let (ids, mask) = (try inputs.readInt64("input_ids"), try inputs.readInt64("attention_mask"))
    let length = try inputs.info("input_ids").shape[1]
    return try EncoderBatch(
      (0..<ids.count / length).map { row in
        (row * length..<(row + 1) * length).filter { mask[$0] == 1 }.map { Int32(ids[$0]) }
      })
  }

  private static func check(_ values: [Float], _ name: String, _ tensor: String, _ backend: String) throws {
    let difference = try Parity.difference(values, expected(name, tensor))
    print("\(backend), \(name), \(tensor): largest difference \(difference) of the largest value")
    #expect(difference <= 1e-5, "\(name), \(tensor)")
  }

  @Test(
    arguments: Parity.backends,
    [
      ("clip", "logits_per_text"), ("clip-text", "last_hidden_state"), ("clip-image", "last_hidden_state"),
      ("vit", "last_hidden_state"), ("vit-classifier", "logits"),
    ])
  func namedOutputsAgreeWithTransformers(_ backend: String, _ model: (name: String, output: String)) throws {
    let forward = try NamedForward(directory: Self.directory(model.name), context: Context(backend))
    #expect(forward.outputName == model.output)
    let inputs = "\(Self.directory(model.name))/inputs.safetensors"
    let output = try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs))
    let path = "\(Self.directory(model.name))/expected.safetensors"
    #expect(try output.shape.array == Safetensors(path: path).info(model.output).shape)
    try Self.check(output.elements, model.name, model.output, backend)
  }

  @Test(arguments: Parity.backends) func embeddingsAgreeWithTransformers(_ backend: String) throws {
    let model = try CLIPModel(directory: Self.directory("clip"), context: Context(backend))
    let texts = try model.text.embed(Self.texts("clip"), workspace: EncoderModel.Workspace())
    try Self.check(texts.elements, "clip", "text_features", backend)
    let pixels = try Self.pixels("clip")
    let workspace = try ImageEncoderModel.Workspace()
    let images = try model.image.pooled(model.image.forward(pixels.view, workspace: workspace))
    try Self.check(images.elements, "clip", "image_features", backend)
  }

  /// The first of two end tokens, as a text is padded with them, and the hidden state that latent diffusion takes.
  @Test(arguments: Parity.backends) func theTextTowerAloneAgreesWithTransformers(_ backend: String) throws {
    let model = try CLIPTextModel(directory: Self.directory("clip-text"), context: Context(backend))
    let (batch, workspace) = (try Self.texts("clip-text"), try EncoderModel.Workspace())
    try Self.check(model.embed(batch, workspace: workspace).elements, "clip-text", "text_embeds", backend)
    let padded = try EncoderBatch([Array(batch.ids[batch.segments[1]]) + [50, 50]])
    let vector = try model.embed(padded, workspace: workspace).elements
    let difference = try Parity.difference(vector, Array(Self.expected("clip-text", "text_embeds").suffix(20)))
    #expect(difference <= 1e-5)

    let layers = model.configuration.encoder.numHiddenLayers - 1
    let penultimate = try model.encoder.forward(batch, workspace: workspace, layers: layers, finalNorm: false).elements
    // The second text has 8 of 12 tokens.
    let expected = try Self.expected("clip-text", "penultimate").prefix(penultimate.count)
    #expect(try Parity.difference(penultimate, Array(expected)) <= 1e-5)
  }

  /// Vectors and earlier hidden states of one pass have the bits of two passes; states go to rows with a stride, too.
  @Test(arguments: Parity.backends) func onePassGivesVectorsAndEarlierStates(_ backend: String) throws {
    let model = try CLIPTextModel(directory: Self.directory("clip-text"), context: Context(backend))
    let (batch, workspace) = (try Self.texts("clip-text"), try EncoderModel.Workspace())
    let (count, width) = (model.configuration.encoder.numHiddenLayers, model.configuration.encoder.hiddenSize)
    let vectors = try model.embed(batch, workspace: workspace).elements
    let memory = try MutableTensor(zeros: Shape(batch.ids.count, width + 3))
    let states = memory.columns(2..<width + 2)
    for layers in 0...count {
      let expected = try model.encoder.forward(batch, workspace: workspace, layers: layers, finalNorm: false).elements
      #expect(try model.embed(batch, workspace: workspace, keeping: (layers, states)).elements == vectors)
      #expect(states.elements == expected, "behind \(layers) layers")
    }
    for layers in [-1, count + 1] {
      #expect(throws: QuernError.self) { try model.embed(batch, workspace: workspace, keeping: (layers, states)) }
    }
    let narrow = memory.columns(0..<width - 1)
    #expect(throws: QuernError.self) { try model.embed(batch, workspace: workspace, keeping: (count, narrow)) }
  }

  @Test(arguments: Parity.backends, ["clip-image", "vit"])
  func pooledStatesAgreeWithTransformers(_ backend: String, _ name: String) throws {
    let model = try ImageEncoderModel(directory: Self.directory(name), context: Context(backend))
    #expect(!model.isClassifier && model.pooledSize == 32)
    let workspace = try ImageEncoderModel.Workspace()
    let pixels = try Self.pixels(name)
    let pooled = try model.pooled(model.forward(pixels.view, workspace: workspace)).elements
    try Self.check(pooled, name, "pooler_output", backend)

    // The same image alone, from pixels with channels last, in memory that held more images before.
    let (channels, size) = (pixels.shape[1], pixels.shape[2])
    let one = try MutableTensor(zeros: Shape(1, size, size, channels))
    try model.context.copy(pixels.view.rows(1..<2).permuted([0, 2, 3, 1]), into: one)
    let alone = try model.pooled(model.forward(one.view, layout: .channelsLast, workspace: workspace)).elements
    #expect(try Parity.difference(alone, Array(pooled.suffix(32))) <= 1e-5)
  }

  @Test(arguments: [(DataType.bf16, Float(0.1)), (.f16, 0.01)]) func narrowStorageStaysClose(
    _ precision: DataType, _ bound: Float
  ) throws {
    let model = try ImageEncoderModel(directory: Self.directory("vit"), context: Context(), precision: precision)
    let hidden = try model.forward(Self.pixels("vit").view, workspace: ImageEncoderModel.Workspace())
    #expect(hidden.dataType == precision)
    let difference = try Parity.difference(hidden.elements, Self.expected("vit", "last_hidden_state"))
    #expect(difference > 0 && difference < bound)
  }

  @Test func inputsThatDoNotFitAreRefused() throws {
    let model = try ImageEncoderModel(directory: Self.directory("vit"), context: Context())
    let workspace = try ImageEncoderModel.Workspace()
    for shape in [Shape(1, 2, 12, 11), Shape(1, 3, 12, 12), Shape(12, 12, 2), Shape(1, 12, 12, 2)] {
      let pixels = try MutableTensor(zeros: shape)
      #expect(throws: QuernError.self) { try model.forward(pixels.view, workspace: workspace) }
    }
    let text = try CLIPTextModel(directory: Self.directory("clip-text"), context: Context())
    #expect(throws: QuernError.self) {
      try text.embed(EncoderBatch([[5, 50], [5, 6]]), workspace: EncoderModel.Workspace())
    }
    #expect(throws: QuernError.self) { try text.embed(EncoderBatch([[]]), workspace: EncoderModel.Workspace()) }
    let forward = try NamedForward(directory: Self.directory("vit"), context: Context())
    let file = "\(Self.directory("clip-text"))/inputs.safetensors"
    let error = modelError { _ = try forward.inputs(from: Safetensors(path: file), file: file) }
    #expect(error?.field.contains("pixel_values") == true)
  }

  /// Each change to config.json, and the field that the error must name.
  @Test(arguments: [
    ("vit", "\"image_size\": 12", "\"image_size\": 2", "patch_size"),
    ("vit", "\"image_size\": 12", "\"image_size\": [12, 12]", "image_size"),
    ("vit", "\"image_size\": 12", "\"image_size\": 15", "position_embeddings"),
    ("vit", "\"patch_size\": 3", "\"patch_size\": 0", "patch_size"),
    ("vit", "\"pooler_act\": \"tanh\"", "\"pooler_act\": \"relu\"", "pooler_act"),
    ("vit", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", "hidden_act"),
    ("vit", "\"num_channels\": 2", "\"num_channels\": 3", "projection.weight"),
    ("vit-classifier", "\"LABEL_4\"\n", "\"LABEL_4\", \"5\": \"LABEL_5\"\n", "classifier.weight"),
    ("clip", "\"projection_dim\": 24", "\"projection_dim\": 25", "projection.weight"),
    ("clip", "\"vocab_size\": 64", "\"vocab_size\": 65", "token_embedding"),
    ("clip", "\"num_attention_heads\": 4", "\"num_attention_heads\": 5", "num_attention_heads"),
    ("clip", "\"vision_config\"", "\"vision_konfig\"", "vision_config"),
    ("clip", "\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"quickest_gelu\"", "hidden_act"),
    ("clip-text", "\"eos_token_id\": 50", "\"eos_token_id\": -1", "eos_token_id"),
    ("clip-image", "\"model_type\": \"clip_vision_model\"", "\"model_type\": \"siglip_vision_model\"", "model_type"),
  ])
  func whatIsNotImplementedIsNamed(_ name: String, _ old: String, _ new: String, _ field: String) throws {
    let folder = try TemporaryFolder(copying: ["config.json", "model.safetensors"], of: Self.directory(name))
    try folder.replace(old, with: new, in: "config.json")
    let error = try #require(
      modelError {
        if name == "clip-text" {
          _ = try CLIPTextModel(directory: folder.path, context: Context())
        } else {
          _ = try NamedForward(directory: folder.path, context: Context())
        }
      })
    #expect(error.field.contains(field) || error.reason.contains(field), "\(error)")
  }

  /// Older directories say the same in `text_config_dict`, and leave out what has its default.
  @Test func theOlderNamesOfPartsAreRead() throws {
    let folder = try TemporaryFolder()
    let part = "\"hidden_size\": 64, \"num_hidden_layers\": 2"
    try folder.write(
      "config.json",
      """
      {"model_type": "clip", "text_config_dict": {\(part)}, "text_config": {"hidden_size": 9},
       "vision_config_dict": null, "vision_config": {}}
      """.utf8)
    let clip = try CLIPConfiguration(HubConfig(directory: folder.path))
    #expect(clip.text.encoder.hiddenSize == 64 && clip.text.encoder.numHiddenLayers == 2)
    #expect(clip.text.encoder.vocabSize == 49408 && clip.text.endOfText == 49407 && clip.text.projectionDim == 512)
    #expect(clip.image.stack.hiddenSize == 768 && clip.image.tokens == 50)
    #expect(clip.text.encoder.stack.hiddenAct == .quickGelu)
  }

  @Test(arguments: ["clip", "clip-text", "clip-image", "vit", "vit-classifier"])
  func quantisedDirectoriesLoadAndStayClose(_ name: String) throws {
    let (directory, folder) = (Self.directory(name), try TemporaryFolder())
    let report = try ModelQuantizer(model: directory, as: .blocks(.q8)).write(to: folder.path)
    // Six matrices of three layers in each tower have 32 inputs, but for those with 48.
    let heads = ["clip": 2, "clip-text": 1, "vit": 1, "vit-classifier": 1][name] ?? 0
    #expect(report.matrices.count == (name == "clip" ? 30 : 15) + heads)
    let inputs = "\(directory)/inputs.safetensors"
    func output(_ path: String) throws -> [Float] {
      let forward = try NamedForward(directory: path, context: Context())
      return try forward.output(forward.inputs(from: Safetensors(path: inputs), file: inputs)).elements
    }
    let difference = try Parity.difference(output(folder.path), output(directory))
    #expect(difference > 0 && difference < 0.1)
  }
}
