import Foundation
import Quern
import QuernModels
import QuernTesting
import Testing

/// The memory a model takes, said before it is read.
@Suite struct MemoryNeedTests {
  @Test(arguments: [
    "qwen3", "mixtral", "gpt2", "gemma2", "gpt-oss", "gpt-oss-mxfp4", "mixtral.gguf", "mixtral-q8.gguf", "llama3.gguf",
    "gpt-oss-mxfp4.gguf", "deepseek-v3.gguf",
  ])
  func weightsAreThoseOfTheFile(_ name: String) throws {
    let path = Fixture.path("decoders/\(name)")
    let need = try DecoderModel.memoryNeed(path: path, capacity: 50)
    // All tensors; vectors are counted as f32 and at most.
    let source: any TensorSource = try name.hasSuffix(".gguf") ? GGUF(path: path) : SafetensorsDirectory(path: path)
    var (least, vectors) = (0, 0)
    for tensor in source.tensorNames where tensor != "rope_freqs.weight" {
      let info = try source.info(tensor)
      if info.shape.count == 1 {
        vectors += info.elementCount * 4
      } else {
        least += info.byteRange.count
      }
    }
    #expect(need.weights >= least + vectors / 2 && need.weights <= least + 8 * vectors + 20_000)
    #expect(need.loading > 0 && need.loading < least)
    let cache = try DecoderModel(path: path, context: Context()).makeCache(capacity: 50)
    let configuration = try DecoderModel(path: path, context: Context()).configuration
    #expect(need.cache == KeyValueCache.byteCount(configuration, sequences: 1, capacity: cache.capacity))
    #expect(need.total == need.weights + max(need.loading, need.cache + need.workspace))
    let more = try DecoderModel.memoryNeed(
      path: path, precision: .f32, sequences: 3, capacity: 100, cacheType: .bf16)
    #expect(more.cache == need.cache * 3 && more.workspace > need.workspace && more.weights >= need.weights)
    var huge = try DecoderModel.memoryNeed(path: path, sequences: .max, capacity: .max)
    #expect(huge.total == .max)
    var both = need
    both += more
    #expect(both.weights == need.weights + more.weights && both.cache == need.cache + more.cache)
    huge += both
    #expect(huge.total == .max)
  }

  /// A gated part's two products have no rows of their own, but where factors stand for one of them.
  @Test func theWorkspaceHoldsOneRowOfAFeedForwardPart() throws {
    let path = Fixture.path("decoders/qwen3")
    let c = try DecoderModel(path: path, context: Context()).configuration
    let heads = (c.numAttentionHeads + 2 * c.numKeyValueHeads) * c.headDim + c.numAttentionHeads * c.headDim
    let width = 2 * c.hiddenSize + heads + c.intermediateSize
    let need = try DecoderModel.memoryNeed(path: path, capacity: 50)
    #expect(need.workspace == 4 * (50 * width + c.hiddenSize + c.vocabSize))
  }

  @Test func theSystemSaysWhatIsAvailable() throws {
    let available = try #require(MemoryNeed.available())
    #expect(available > 1 << 20 && available < 1 << 50)
  }

  @Test func aModelThatDoesNotFitIsRefusedBeforeItIsRead() throws {
    let folder = try TextGeneratorTests.folder(positions: 1 << 24)
    func quern(_ arguments: [String]) throws -> BuiltProgram.Output {
      // 256 beams of 16 million positions: terabytes.
      try BuiltProgram("quern").run(
        ["generate", "--model", folder.path, "--ids", "5", "--beams", "256", "--max-tokens", "16000000"] + arguments)
    }
    let output = try quern([])
    #expect(output.status == 1 && output.standardOutput.isEmpty)
    #expect(output.standardError.contains("of memory") && output.standardError.contains("--ignore-memory"))
    let forced = try quern(["--ignore-memory"])
    #expect(forced.status == 1 && !forced.standardError.contains("--ignore-memory"))
  }

  @Test func forwardTakesAGGUFFile() throws {
    let folder = try TemporaryFolder()
    let directory = Fixture.path("decoders/qwen3")
    let outputs = "\(folder.path)/out.safetensors"
    let output = try BuiltProgram("quern").run([
      "forward", "--model", "\(directory).gguf", "--inputs", "\(directory)/inputs.safetensors", "--outputs", outputs,
    ])
    #expect(output.status == 0, "\(output.standardError)")
    let logits = try Safetensors(path: outputs).readFloat32("logits")
    let expected = try Safetensors(path: "\(directory)/expected.safetensors").readFloat32("logits")
    let largest = expected.map(abs).max() ?? 0
    #expect(zip(logits, expected).allSatisfy { abs($0 - $1) <= 1e-5 * largest } && logits.count == expected.count)
  }
}
