/// What continues prompts a pass of a model at a time.
public protocol TokenGenerator: AnyObject {
  /// Whether nothing is left to do.
  var isIdle: Bool { get }

  /// Queues a prompt for the next pass; throws ``GenerationError``.
  func add(_ prompt: [Int32], options: GenerationOptions) throws(GenerationError) -> BatchGenerator.RequestID

  /// Ends a request.
  func cancel(_ request: BatchGenerator.RequestID)

  /// Runs the model once.
  ///
  /// - Parameter proceed: asked before each layer; what it throws ends the pass.
  func step(proceed: () throws -> Void) throws -> [BatchGenerator.Event]
}

extension BatchGenerator: TokenGenerator {}

extension GenerationOptions {
  /// Refuses a prompt that cannot be continued, and options out of their range.
  func validate(prompt: [Int32], capacity: Int) throws(GenerationError) {
    guard !prompt.isEmpty else { throw .emptyPrompt }
    guard prompt.count < capacity else { throw .promptTooLong(tokens: prompt.count, capacity: capacity) }
    try validate()
  }

  /// Refuses options out of their range.
  func validate() throws(GenerationError) {
    try sampling.validate()
    guard maximumTokens > 0 else {
      throw .invalidOption(name: "maximumTokens", value: "\(maximumTokens)", expected: "more than 0")
    }
  }
}
