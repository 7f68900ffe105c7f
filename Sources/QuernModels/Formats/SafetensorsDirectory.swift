/// The weights of a model folder: one `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
///
/// With an index, the files must hold exactly the tensors it lists, each in the shard it names, and every shard
/// must lie in the folder.
public final class SafetensorsDirectory: TensorSource {
  public let path: String
  public let tensorNames: [String]
  /// The index, where the weights lie in shards.
  let indexName: String?
  /// The files, and their names in the folder.
  let shards: [Safetensors]
  let shardNames: [String]
  private let shardOf: [UTF8Key: Int]

  /// `baseName` is `model` for transformers, `diffusion_pytorch_model` for diffusers.
  public init(path: String, baseName: String = "model") throws(ModelError) {
    self.path = path
    guard ModelFile.isDirectory(path) else {
      throw ModelError(file: path, field: "", reason: "no such directory")
    }
    let single = "\(path)/\(baseName).safetensors"
    let index = single + ".index.json"
    if ModelFile.exists(single) {
      (shards, shardNames, indexName) = ([try Safetensors(path: single)], ["\(baseName).safetensors"], nil)
      tensorNames = shards[0].tensorNames
      shardOf = [:]
    } else if ModelFile.exists(index) {
      (shards, shardNames, shardOf) = try Self.openShards(JSONDocument(path: index), directory: path)
      indexName = "\(baseName).safetensors.index.json"
      tensorNames = shards.flatMap(\.tensorNames)
    } else {
      throw ModelError(
        file: path, field: "",
        reason: "holds neither \(baseName).safetensors nor \(baseName).safetensors.index.json; "
          + "weights in other formats (.bin, .pt) are not read")
    }
  }

  private static func openShards(
    _ index: JSONDocument, directory: String
  ) throws(ModelError) -> ([Safetensors], [String], [UTF8Key: Int]) {
    var shards: [Safetensors] = []
    var names: [String] = []
    var places: [UTF8Key: Int] = [:]
    var shardOf: [UTF8Key: Int] = [:]
    try index.root.required("weight_map").forEachMember { (name, value) throws(ModelError) in
      let file = try value.string()
      let place: Int
      if let known = places[UTF8Key(file)] {
        place = known
      } else {
        if let reason = reasonToRefuse(shard: file) { throw value.error(reason) }
        let shardPath = "\(directory)/\(file)"
        guard ModelFile.exists(shardPath) else { throw value.error("the shard \(file) is not in the folder") }
        place = shards.count
        shards.append(try Safetensors(path: shardPath))
        names.append(file)
        places[UTF8Key(file)] = place
      }
      guard shards[place].contains(name) else { throw value.error("\(file) has no tensor of this name") }
      shardOf[UTF8Key(name)] = place
    }
    for (place, shard) in shards.enumerated() {
      for name in shard.tensorNames where shardOf[UTF8Key(name)] != place {
        throw ModelError(
          file: shard.path, field: "tensors.\(name)", reason: "is not listed for this file in \(index.file)")
      }
    }
    return (shards, names, shardOf)
  }

  /// Why a shard's name may not be used, or nil: the path must not be able to leave the folder.
  private static func reasonToRefuse(shard: String) -> String? {
    if shard.utf8.contains(0) { return "the name of a shard has a NUL character in it" }
    let parts = shard.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map {
      String($0) ?? ""
    }
    if parts.contains(where: { $0 == "" || $0 == "." || $0 == ".." }) {
      return "\(shard) is not a path inside the folder"
    }
    return nil
  }

  private func shard(_ name: String) throws(ModelError) -> Safetensors {
    if shardOf.isEmpty, shards.count == 1 { return shards[0] }
    guard let place = shardOf[UTF8Key(name)] else {
      throw ModelError(
        file: path, field: "tensors.\(name)",
        reason: "there is no such tensor among the \(tensorNames.count) of this model")
    }
    return shards[place]
  }

  /// What reads parts of the tensor `name`.
  func reader(_ name: String) throws(ModelError) -> TensorFile { try shard(name).reader }

  public func info(_ name: String) throws(ModelError) -> TensorInfo { try shard(name).info(name) }

  public func readFloat32(_ name: String, into destination: UnsafeMutableBufferPointer<Float>) throws(ModelError) {
    try shard(name).readFloat32(name, into: destination)
  }

  public func readInt64(_ name: String) throws(ModelError) -> [Int64] { try shard(name).readInt64(name) }

  public func readBytes(_ name: String) throws(ModelError) -> FileBytes { try shard(name).readBytes(name) }

  public func readBytes(_ name: String, into destination: UnsafeMutableRawBufferPointer) throws(ModelError) {
    try shard(name).readBytes(name, into: destination)
  }
}
