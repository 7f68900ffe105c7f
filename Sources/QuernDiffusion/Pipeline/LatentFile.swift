import Quern
import QuernModels

/// Latents of one picture in a safetensors file: the tensor `latents`, `[1, channels, height, width]`.
public enum LatentFile {
  private static let name = "latents"

  /// - Throws: ``ModelError`` naming file and field, also for a file with other tensors, or one that is larger than any latents.
  public static func read(path: String) throws -> Tensor {
    let file = try Safetensors(path: path)
    guard file.tensorNames == [name] else {
      throw ModelError(
        file: path, field: "tensors",
        reason: "has \(file.tensorNames.count) tensors; a file of latents has one, \(name)")
    }
    let info = try file.info(name)
    guard info.shape.count == 4, info.shape[0] == 1, info.elementCount > 0, info.elementCount <= 1 << 26 else {
      throw ModelError(
        file: path, field: "tensors.\(name).shape", reason: "is \(info.shape); [1, channels, height, width] is expected"
      )
    }
    return try Tensor(file.readFloat32(name), shape: Shape(checking: info.shape))
  }

  public static func write(_ latents: Tensor, path: String) throws(ModelError) {
    try Safetensors.write(
      path: path, tensors: [.init(name: name, shape: latents.shape.array, values: .float32(latents.elements))])
  }
}
