import Quern
import QuernModels

/// Memory of an autoencoder's passes. Grows to the largest it has met.
///
/// Not `Sendable`: one for each task.
public final class AutoencoderWorkspace {
  let arena: Arena
  private var named: [Purpose: MutableTensor] = [:]

  /// What a tensor that outlives a pass through the layers is for.
  enum Purpose: Hashable { case moments, prepared, tile, input, above, left }

  public init() throws { arena = try Arena() }

  /// An f32 tensor without gaps, not initialised.
  func tensor(_ purpose: Purpose, _ shape: Shape) throws(QuernError) -> MutableTensor {
    if let held = named[purpose], held.shape[0] >= shape.count { return held.rows(0..<shape.count).reshaped(shape) }
    named[purpose] = nil
    let made = try MutableTensor(zeros: Shape(shape.count))
    named[purpose] = made
    return made.reshaped(shape)
  }
}

/// What stands between pictures and the latents of a diffusion model. Pictures are `[batch, height, width, channels]` in [-1, 1],
/// latents `[batch, height / factor, width / factor, latentChannels]`, both f32 without gaps.
public protocol LatentAutoencoder: Sendable {
  var latentChannels: Int { get }
  var pictureChannels: Int { get }
  /// Pixels of a picture for one of its latents, on each axis.
  var factor: Int { get }
  var latentScale: LatentScale { get }
  /// The pieces that diffusers works in.
  var defaultTiling: Tiling { get }

  /// The picture of latents, not cut off at ±1.
  ///
  /// - Parameters:
  ///   - latents: as the encoder made them: ``LatentScale/unscale(_:into:)`` of a diffusion model's.
  ///   - tiling: decodes piece by piece where the picture is larger than a tile, in memory for one piece.
  ///   - proceed: asked before each piece; what it throws ends the pass.
  /// - Throws: ``QuernError``, for shapes that do not fit.
  func decode(
    _ latents: TensorView, tiling: Tiling?, into picture: MutableTensor, workspace: AutoencoderWorkspace,
    proceed: () throws -> Void) throws

  /// Latents of a picture, without the scale.
  ///
  /// - Parameters:
  ///   - noise: the shape of the latents, of mean 0 and variance 1: for a draw from what the encoder makes of the picture; `nil` for its
  ///     mean. An autoencoder that knows no spread takes no notice.
  ///   - tiling: as ``decode(_:tiling:into:workspace:proceed:)``.
  func encode(
    _ picture: TensorView, noise: TensorView?, tiling: Tiling?, into latents: MutableTensor,
    workspace: AutoencoderWorkspace, proceed: () throws -> Void) throws
}

extension LatentAutoencoder {
  public func decode(
    _ latents: TensorView, into picture: MutableTensor, workspace: AutoencoderWorkspace
  ) throws {
    try decode(latents, tiling: nil, into: picture, workspace: workspace) {}
  }

  public func encode(
    _ picture: TensorView, noise: TensorView? = nil, into latents: MutableTensor, workspace: AutoencoderWorkspace
  ) throws {
    try encode(picture, noise: noise, tiling: nil, into: latents, workspace: workspace) {}
  }

  /// Latents of a picture of this size.
  ///
  /// - Throws: ``QuernError/invalidShape(_:)`` for a size that is no multiple of the factor.
  public func latentSize(of size: ImageSize) throws(QuernError) -> ImageSize {
    guard size.height > 0, size.width > 0, size.height % factor == 0, size.width % factor == 0 else {
      throw .invalidShape("a picture of \(size): height and width are multiples of \(factor)")
    }
    return ImageSize(size.height / factor, size.width / factor)
  }

  /// Refuses anything but a picture and its latents.
  func check(picture: some Strided, latents: some Strided) throws(QuernError) {
    guard picture.shape.rank == 4, latents.shape.rank == 4 else {
      throw .invalidShape("a picture \(picture.shape) and latents \(latents.shape): rank 4 is expected")
    }
    let size = try latentSize(of: ImageSize(picture.shape[1], picture.shape[2]))
    let expected = Shape(picture.shape[0], size.height, size.width, latentChannels)
    guard latents.shape == expected, picture.shape[3] == pictureChannels, picture.shape[0] > 0 else {
      throw .invalidShape(
        "latents \(latents.shape) of a picture \(picture.shape): \(expected) and \(pictureChannels) channels are expected"
      )
    }
    guard picture.isContiguous, latents.isContiguous, picture.dataType == .f32, latents.dataType == .f32 else {
      throw .invalidShape("pictures and latents are f32 without gaps")
    }
  }
}

/// The autoencoder of a diffusers directory, of whatever class its `config.json` names.
public enum LatentAutoencoders {
  /// - Parameters:
  ///   - directory: the folder `vae`.
  ///   - precision: the storage of weights and activations.
  /// - Throws: ``ModelError`` naming file, field and offset, also for classes that are not implemented.
  public static func open(
    directory: String, context: Context, precision: DataType = .f32
  ) throws -> any LatentAutoencoder {
    let config = try HubConfig(directory: directory)
    if try config.string("_class_name", oneOf: ["AutoencoderKL", "AutoencoderTiny"]) == "AutoencoderTiny" {
      return try AutoencoderTiny(directory: directory, context: context, precision: precision)
    }
    return try AutoencoderKL(directory: directory, context: context, precision: precision)
  }
}
