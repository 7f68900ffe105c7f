import QuernModels

/// The weights of a part of a diffusers directory, such as `unet` or `vae`.
package enum ComponentFiles {
  /// `diffusion_pytorch_model.safetensors` or its shards; where there are none, those of the variant `fp16`.
  package static func source(_ directory: String) throws(ModelError) -> SafetensorsDirectory {
    let (name, variant) = ("diffusion_pytorch_model", "diffusion_pytorch_model.fp16")
    let hasOnlyVariant =
      !ModelFile.exists("\(directory)/\(name).safetensors")
      && !ModelFile.exists("\(directory)/\(name).safetensors.index.json")
      && ModelFile.exists("\(directory)/\(variant).safetensors")
    return try SafetensorsDirectory(path: directory, baseName: hasOnlyVariant ? variant : name)
  }
}
