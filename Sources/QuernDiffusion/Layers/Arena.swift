import Quern
import QuernModels

/// Memory of a model's activations, taken and given back like a stack: what a layer needs for itself lies where the one before had
/// its own.
package final class Arena {
  private var storage: MutableTensor
  private var used = 0
  private var peak = 0

  package var byteCount: Int { storage.shape.count * storage.dataType.size }

  /// The most that was taken at a time since the memory was last made larger.
  package var peakByteCount: Int { peak * storage.dataType.size }

  package init() throws(QuernError) { storage = try MutableTensor(zeros: Shape(0)) }

  /// Elements that a tensor takes: whole cache lines of any data type.
  package static func size(_ elements: Int) -> Int { elements.saturatingAdd(31) & ~31 }

  /// Gives everything back, and makes room for this many elements.
  package func reset(capacity: Int, _ dataType: DataType) throws(QuernError) {
    used = 0
    guard storage.shape[0] < capacity || storage.dataType != dataType else { return }
    // The old memory goes first.
    storage = try MutableTensor(zeros: Shape(0), dataType: dataType)
    storage = try MutableTensor(uninitialized: Shape(checking: [capacity]), dataType: dataType)
    peak = 0
  }

  /// A contiguous tensor, not initialised.
  ///
  /// - Throws: ``QuernError/outOfMemory(bytes:)`` where less was reserved.
  package func take(_ shape: Shape) throws(QuernError) -> MutableTensor {
    let size = Self.size(shape.count)
    guard size <= storage.shape[0] - used else { throw .outOfMemory(bytes: size * storage.dataType.size) }
    let tensor = storage.rows(used..<used + shape.count).reshaped(shape)
    used += size
    peak = max(peak, used)
    return tensor
  }

  package func take(batch: Int, height: Int, width: Int, channels: Int) throws(QuernError) -> MutableTensor {
    try take(Shape(batch, height, width, channels))
  }

  /// How much is taken; ``release(_:)`` gives back what was taken since.
  package var mark: Int { used }

  package func release(_ mark: Int) { used = min(used, mark) }
}

extension Strided {
  /// An image `[batch, height, width, channels]`, or a range of its channels, as rows of pixels.
  package var pixels: Self {
    reinterpreted(
      offset: 0, shape: Shape(shape[0] * shape[1] * shape[2], shape[3]), strides: Shape(strides[2], strides[3]))
  }
}
