import Quern
import QuernModels

/// The mask of an inpainting: white is made anew, black stays.
struct InpaintingMask {
  private let size: ImageSize
  /// Of each pixel, row by row.
  private let isWhite: [Bool]

  /// Of a mask of the picture's size: white is what half of white or more is, by the luma of ITU-R BT.601.
  init(_ mask: RGBImage) {
    size = ImageSize(mask.height, mask.width)
    isWhite = (0..<mask.height * mask.width).map { pixel in
      let (red, green, blue) = (mask.bytes[3 * pixel], mask.bytes[3 * pixel + 1], mask.bytes[3 * pixel + 2])
      return 299 * Int(red) + 587 * Int(green) + 114 * Int(blue) >= 127_500
    }
  }

  /// The nearest pixel of each latent, of `[1, height, width, channels]`, row by row.
  func atLatents(of shape: Shape) -> [Bool] {
    let (height, width) = (shape[1], shape[2])
    let (rows, columns) = (size.height / height, size.width / width)
    return (0..<height * width).map { isWhite[$0 / width * rows * size.width + $0 % width * columns] }
  }

  /// Makes white pixels of `[1, height, width, 3]` the grey in the middle, 0.
  func hide(in pixels: MutableTensor) {
    for (pixel, isWhite) in isWhite.enumerated() where isWhite {
      for channel in 0..<3 { pixels.pointer[3 * pixel + channel] = 0 }
    }
  }
}

/// What inpainting by a U-Net that sees no mask puts back after each step: latents of the initial image, where the mask is black.
struct KeptLatents {
  let original: MutableTensor
  private let isWhite: [Bool]

  init(_ original: MutableTensor, _ mask: InpaintingMask) {
    (self.original, isWhite) = (original, mask.atLatents(of: original.shape))
  }

  func restore(_ noised: MutableTensor, in sample: MutableTensor) {
    let channels = sample.shape[3]
    for (latent, isWhite) in isWhite.enumerated() where !isWhite {
      for index in latent * channels..<(latent + 1) * channels { sample.pointer[index] = noised.pointer[index] }
    }
  }
}
