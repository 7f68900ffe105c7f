extension UNetPlan {
  /// What the original code calls each module, by diffusers' name: kohya's trainer names the layers of SDXL so.
  func originalNames() -> (String) -> String? {
    let whole = [
      "conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
      "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
      "add_embedding.linear_2": "label_emb.0.2",
    ]
    let leaves = [
      "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
      "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    ]
    var places: [String: String] = [:]
    var input = 1
    for block in down {
      for layer in block.layers.indices {
        places["\(block.name).resnets.\(layer)"] = "input_blocks.\(input).0"
        places["\(block.name).attentions.\(layer)"] = "input_blocks.\(input).1"
        input += 1
      }
      guard block.resamples else { continue }
      places["\(block.name).downsamplers.0"] = "input_blocks.\(input).0"
      input += 1
    }
    for (place, module) in ["resnets.0", "attentions.0", "resnets.1"].enumerated() {
      places["mid_block.\(module)"] = "middle_block.\(place)"
    }
    var output = 0
    for block in up {
      for (layer, plan) in block.layers.enumerated() {
        places["\(block.name).resnets.\(layer)"] = "output_blocks.\(output).0"
        places["\(block.name).attentions.\(layer)"] = "output_blocks.\(output).1"
        let behind = plan.attention == nil ? 1 : 2
        if layer == block.layers.count - 1 {
          places["\(block.name).upsamplers.0"] = "output_blocks.\(output).\(behind)"
        }
        output += 1
      }
    }
    return { [places] module in
      if let name = whole[module] { return name }
      // The first words are `down_blocks.0.resnets.1`, or `mid_block.resnets.1`.
      let words = module.split(separator: ".")
      let count = module.hasPrefix("mid_block.") ? 3 : 4
      guard words.count > count, let place = places[words.prefix(count).joined(separator: ".")] else { return nil }
      let leaf = words.dropFirst(count).joined(separator: ".")
      if words[count - 2] == "downsamplers" { return "\(place).op" }
      return "\(place).\(words[count - 2] == "resnets" ? leaves[leaf] ?? leaf : leaf)"
    }
  }
}
