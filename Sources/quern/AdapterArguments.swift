import ArgumentParser
import QuernModels

/// Adapters of a model.
struct AdapterArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp("A LoRA adapter as PEFT saves it, perhaps with a weight; repeatable.", valueName: "dir[=weight]")
  )
  var lora: [String] = []
  @Flag(name: .customLong("merge-lora"), help: "Add adapters to the weights instead of running them beside.")
  var mergesLoRA = false

  var adapters: [LoRAAdapter] {
    get throws {
      try lora.map { argument in
        let (path, weight) = Self.pathAndWeight(argument)
        return try LoRAAdapter(directory: path, weight: weight)
      }
    }
  }

  /// The parts of `path=weight`, or a path alone, whose weight is 1.
  static func pathAndWeight(_ argument: String) -> (path: String, weight: Float) {
    // A path may have an equals sign in its name.
    guard let sign = argument.lastIndex(of: "="), let weight = Float(argument[argument.index(after: sign)...]) else {
      return (argument, 1)
    }
    return (String(argument[..<sign]), weight)
  }
}
