import Quern

/// The noise of a picture from its seed: the same numbers for any backend, thread count and batch.
///
/// Each picture and each use has a stream of its own of Quern's generator (see ``RandomKey``), so the second of two pictures is the one
/// that `firstPicture: 1` makes alone.
public struct NoiseSource: Sendable, Hashable {
  /// What the noise is for.
  public enum Use: Sendable, Hashable {
    /// The sample that a run starts from.
    case initial
    /// An encoder's draw from its posterior.
    case posterior
    /// The noise of a sampler's step, counted from 0.
    case step(Int)
  }

  public var seed: UInt64
  /// The number of the first picture of a batch.
  public var firstPicture: Int
  /// Another seed whose first noise this one's is turned towards, and how far: 0 to 1.
  public var variation: (seed: UInt64, fraction: Float)? {
    get { variationSeed.map { ($0, variationFraction) } }
    set { (variationSeed, variationFraction) = (newValue?.seed, newValue?.fraction ?? 0) }
  }
  private var variationSeed: UInt64?
  private var variationFraction: Float = 0

  public init(seed: UInt64, firstPicture: Int = 0) { (self.seed, self.firstPicture) = (seed, firstPicture) }

  /// The stream of a picture and a use.
  public func key(_ use: Use, picture: Int) -> RandomKey {
    let low: UInt64 =
      switch use {
      case .initial: 0
      case .posterior: 1
      case .step(let step): 2 &+ UInt64(UInt32(truncatingIfNeeded: step))
      }
    let high = UInt64(UInt32(truncatingIfNeeded: firstPicture &+ picture))
    return RandomKey(seed: seed, stream: high << 32 | low)
  }

  /// Fills `noise`, `[pictures, ...]`, f32 without gaps, with numbers of mean 0 and standard deviation `scale`, in memory order.
  ///
  /// With a ``variation`` first noise goes along the great circle to the other seed's (Shoemake, SIGGRAPH 1985), picture by picture;
  /// that takes memory of its size.
  ///
  /// - Throws: ``QuernError``, for a tensor of another kind.
  public func fill(
    _ noise: MutableTensor, _ use: Use, scale: Double = 1, context: Context
  ) throws(QuernError) {
    guard noise.shape.rank >= 2, noise.isContiguous, noise.dataType == .f32 else {
      throw .invalidShape("noise of shape \(noise.shape): [pictures, ...] in f32 without gaps is expected")
    }
    let pictures = noise.shape[0]
    guard noise.shape.count > 0 else { return }
    let rows = noise.reshaped(Shape(pictures, noise.shape.count / pictures))
    for picture in 0..<pictures {
      try context.random(.normal, key: key(use, picture: picture), into: rows.rows(picture..<picture + 1))
    }
    if let (seed, fraction) = variation, use == .initial {
      let other = try MutableTensor(zeros: rows.shape)
      try NoiseSource(seed: seed, firstPicture: firstPicture).fill(other, use, context: context)
      try context.slerp(rows.view, other.view, fraction: fraction, into: rows)
    }
    if scale != 1 { try context.scale(rows.view, by: Float(scale), into: rows) }
  }
}
