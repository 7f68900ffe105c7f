import Quern
import QuernModels

/// The tensors of a part of a model with the updates of adapters added, as f32.
///
/// Each matrix or convolution `NAME.weight` that an adapter has a pair for becomes `W + Σ weight alpha/r B A`; all other tensors are as they
/// are. An update of a convolution is that of its matrix `[outputs, inputs taps]`.
public struct AdaptedSource: TensorSource {
  private let base: any TensorSource
  private let context: Context
  private let updates: [String: [Update]]
  public var path: String { base.path }
  public var tensorNames: [String] { base.tensorNames }

  private struct Update: Sendable {
    let adapter: DiffusionLoRA
    let down, up: String
    let scale: Float
    let rank: Int
  }

  /// - Parameters:
  ///   - base: the weights of the part.
  ///   - context: multiplies the factors.
  ///   - aliases: further names of modules, from those of the tensors.
  /// - Throws: ``ModelError`` for a module of an adapter that the weights do not have, and for shapes that do not fit.
  public init(
    _ base: any TensorSource, _ adapters: [DiffusionLoRA], part: DiffusionLoRA.Part,
    context: Context, aliases: (String) -> String? = { _ in nil }
  ) throws(ModelError) {
    (self.base, self.context) = (base, context)
    var updates: [String: [Update]] = [:]
    for adapter in adapters {
      guard let modules = adapter.modules[part] else { continue }
      var used: Set<String> = []
      for name in base.tensorNames where name.hasSuffix(".weight") {
        let module = String(name.dropLast(".weight".count))
        let keys = [module, aliases(module)].compactMap { $0.map { DiffusionLoRA.key($0) } }
        guard let key = keys.first(where: { modules[$0] != nil }), let pair = modules[key] else { continue }
        used.insert(key)
        updates[name, default: []].append(try Self.update(adapter, part, pair, base, name))
      }
      if let key = modules.keys.filter({ !used.contains($0) }).min(), let module = modules[key] {
        throw ModelError(
          file: adapter.path, field: "tensors.\(module.down ?? key)",
          reason: "is of no layer of \(base.path); is it an adapter of another model?")
      }
    }
    self.updates = updates
  }

  private static func update(
    _ adapter: DiffusionLoRA, _ part: DiffusionLoRA.Part, _ module: DiffusionLoRA.Module, _ base: any TensorSource,
    _ name: String
  ) throws(ModelError) -> Update {
    guard let down = module.down, let up = module.up else {
      throw ModelError(file: adapter.path, field: "tensors.\(name)", reason: "has one half of a pair")
    }
    let (a, b, w) = (try adapter.source.info(down), try adapter.source.info(up), try base.info(name))
    func error(_ tensor: String, _ info: TensorInfo, _ reason: String) -> ModelError {
      ModelError(
        file: adapter.path, field: "tensors.\(tensor).shape", offset: info.byteRange.lowerBound, reason: reason)
    }
    guard w.quantization == nil, w.shape.count >= 2 else {
      throw ModelError(
        file: base.path, field: "tensors.\(name)", offset: w.byteRange.lowerBound,
        reason: "is no plain matrix, which an update could be added to")
    }
    let inputs = w.elementCount / max(w.shape[0], 1)
    guard a.shape.count >= 2, b.shape.count >= 2, a.shape[0] > 0, a.elementCount / a.shape[0] == inputs,
      a.elementCount % a.shape[0] == 0
    else { throw error(down, a, "\(a.shape) is no [r, ...] of \(inputs) inputs of \(name) \(w.shape)") }
    guard b.shape.dropFirst(2).allSatisfy({ $0 == 1 }), b.shape[0] == w.shape[0], b.shape[1] == a.shape[0] else {
      throw error(up, b, "\(b.shape) does not fit \(down) \(a.shape) and \(name) \(w.shape)")
    }
    let shared = adapter.shared[part]
    var alpha = shared?.alpha ?? Double(a.shape[0])
    if let own = module.alpha {
      guard try adapter.source.info(own).elementCount == 1 else {
        throw error(own, try adapter.source.info(own), "is not one number")
      }
      alpha = Double(try adapter.source.readFloat32(own)[0])
    }
    let rank = Double(a.shape[0])
    return Update(
      adapter: adapter, down: down, up: up,
      scale: Float(Double(adapter.weight) * alpha / (shared?.dividesByRoot == true ? rank.squareRoot() : rank)),
      rank: a.shape[0])
  }

  public func info(_ name: String) throws(ModelError) -> TensorInfo {
    var info = try base.info(name)
    if updates[name] != nil { info.dtype = .f32 }
    return info
  }

  public func contains(_ name: String) -> Bool { base.contains(name) }

  public func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    try base.readFloat32(name, into: destination)
    guard let updates = updates[name], destination.count > 0, let first = destination.baseAddress else { return }
    let outputs = try base.info(name).shape[0]
    let inputs = destination.count / outputs
    let weights = MutableTensor(
      unsafeAddress: first, dataType: .f32, shape: Shape(outputs, inputs), strides: Shape(inputs, 1))
    for update in updates {
      do {
        func matrix(_ name: String, _ shape: Shape) throws -> TensorView {
          try Tensor(shape: shape) { try update.adapter.source.readFloat32(name, into: $0) }.view
        }
        let down = try matrix(update.down, Shape(update.rank, inputs))
        let up = try matrix(update.up, Shape(outputs, update.rank))
        try context.matmul(up, down, beta: 1, epilogue: Epilogue(scale: update.scale), into: weights)
      } catch let error as ModelError {
        throw error
      } catch {
        throw ModelError(file: update.adapter.path, field: "tensors.\(update.up)", reason: "\(error)")
      }
    }
  }

  public func readInt64(_ name: String) throws(ModelError) -> [Int64] { try base.readInt64(name) }

  public func readBytes(_ name: String) throws(ModelError) -> FileBytes {
    guard updates[name] == nil else {
      throw ModelError(file: path, field: "tensors.\(name)", reason: "is changed by an adapter, and read as f32")
    }
    return try base.readBytes(name)
  }

  public func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    guard updates[name] != nil else { return try base.readBytes(name, into: destination) }
    try readFloat32(name, into: destination.bindMemory(to: Float.self))
  }
}
