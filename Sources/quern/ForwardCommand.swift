import ArgumentParser
import Foundation
import Quern
import QuernDiffusion
import QuernModels

struct ForwardCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "forward", abstract: "Runs a model directory on named tensors, or on images.",
    discussion:
      "Reads input_ids and, optionally, attention_mask and token_type_ids ([batch, length]), decoder_input_ids for T5, "
      + "and pixel_values of images ([batch, channels, height, width]), which ViT, CLIP's image tower and ResNet take from image "
      + "files too; writes last_hidden_state of an encoder or a ResNet, logits of a decoder or a classifier, or logits_per_text of "
      + "CLIP; zeros where the mask hides a token.")

  @Option(help: "A Hugging Face model directory, or a GGUF file.") var model: String
  @Option(help: "A safetensors file with the inputs.") var inputs: String?
  @Option(help: "In its place a PNG or JPEG, prepared as preprocessor_config.json says; repeatable.")
  var image: [String] = []
  @Option(help: "The safetensors file to write.") var outputs: String
  @Option(help: "How matrices and hidden states are stored; arithmetic is in f32.") var precision = DataType.f32
  @Option(name: .customLong("repeat"), help: "Run this many times and print the seconds of each pass as JSON.")
  var repetitions: Int?
  @OptionGroup var backend: BackendArguments

  func validate() throws {
    guard (inputs == nil) != image.isEmpty else { throw ValidationError("--inputs or --image is needed, and not both") }
    if let repetitions, repetitions < 1 { throw ValidationError("--repeat takes a number of passes, at least 1") }
  }

  func run() throws {
    let forward = try NamedForward(directory: model, context: backend.context(), precision: precision)
    let values =
      try inputs.map { try forward.inputs(from: Safetensors(path: $0), file: $0) }
      ?? forward.inputs(images: image.map { try PictureFile(path: $0).image })
    var seconds: [Double] = []
    var output = try forward.output(values)
    for _ in 0..<(repetitions ?? 0) {
      let clock = ContinuousClock()
      seconds.append(try clock.measure { output = try forward.output(values) } / .seconds(1))
    }
    try Safetensors.write(
      path: outputs,
      tensors: [.init(name: forward.outputName, shape: output.shape.array, values: .float32(output.elements))])
    if repetitions != nil { print("{\"seconds\": [\(seconds.map { "\($0)" }.joined(separator: ", "))]}") }
  }
}
