import Quern
import QuernModels

/// Memory of the layers that work on several sizes of an image at once. Grows to the largest it has met; what a layer returns lies in it
/// until its next use.
///
/// Not `Sendable`: one for each task.
public final class MultiScaleWorkspace {
  let arena: Arena

  public init() throws { arena = try Arena() }
}

/// Checks of images `[batch, height, width, channels]` at several sizes.
enum Scales {
  static func check(_ scales: [TensorView], channels: [Int]) throws(QuernError) {
    guard scales.count == channels.count, let batch = scales.first?.shape.rank == 4 ? scales.first?.shape[0] : nil else {
      throw .invalidShape("\(scales.count) images for \(channels.count) sizes; rank 4 is expected")
    }
    for (image, channels) in zip(scales, channels) {
      guard image.shape.rank == 4, image.shape[0] == batch, image.shape[3] == channels, image.shape.count > 0,
        image.isContiguous
      else {
        throw .invalidShape(
          "an image \(image.shape): [\(batch), height, width, \(channels)] without gaps is expected")
      }
    }
  }

  static func elements(_ shape: Shape) -> Int { Arena.size(shape.count) }
}
