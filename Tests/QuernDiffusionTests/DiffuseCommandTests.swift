import Foundation
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// `quern diffuse`: files it writes, exit codes, what it refuses.
@Suite struct DiffuseCommandTests {
  private static let sd = Fixture.path("pipelines/sd")

  private func diffuse(_ output: String, _ arguments: String...) throws -> BuiltProgram.Output {
    try BuiltProgram("quern").run(
      ["diffuse", "--model", Self.sd, "--prompt", "a red circle", "--output", output, "--steps", "3"] + arguments)
  }

  #if ImageFiles
    @Test func picturesPreviewsLatentsAndAReportAreWritten() throws {
      let folder = try TemporaryFolder()
      let (output, latents) = ("\(folder.path)/a.png", "\(folder.path)/a.safetensors")
      let run = try diffuse(
        output, "--seed", "7", "--preview", "1", "--save-latents", latents, "--format", "json", "--negative-prompt",
        "cat"
      )
      #expect(run.status == 0, "\(run.standardError)")
      struct Report: Decodable { let steps, width, height, seed: Int, secondsPerStep: Double }
      let report = try JSONDecoder().decode(Report.self, from: Data(run.standardOutput.utf8))
      #expect(report.steps == 3 && report.width == 16 && report.height == 16 && report.seed == 7)
      #expect(report.secondsPerStep > 0)
      #expect(run.standardError.split(separator: "\n").count == 1 && run.standardError.contains("3 steps"))
      for name in ["a.png", "a-1.png", "a-2.png"] {
        let image = try PictureFile(path: "\(folder.path)/\(name)").image
        #expect(image.width == 16 && image.height == 16)
      }
      let text = try #require(PictureFile(path: output).text("parameters"))
      for words in ["a red circle\n", "Negative prompt: cat", "Steps: 3", "Seed: 7", "Size: 16x16"] {
        #expect(text.contains(words), "\(text)")
      }
      #expect(try LatentFile.read(path: latents).shape.array == [1, 4, 8, 8])
    }

    @Test func threadsDoNotChangeThePicture() throws {
      let folder = try TemporaryFolder()
      let pictures = try ["1", "2", "3"].map { threads in
        let output = "\(folder.path)/\(threads).png"
        #expect(try diffuse(output, "--threads", threads).status == 0)
        return try PictureFile(path: output).image
      }
      #expect(pictures[0] == pictures[1] && pictures[0] == pictures[2])
      let other = "\(folder.path)/other.png"
      #expect(try diffuse(other, "--seed", "1").status == 0)
      #expect(try PictureFile(path: other).image != pictures[0])
    }

    @Test func aPictureAndAMaskAreReadAgain() throws {
      let folder = try TemporaryFolder()
      let (first, second) = ("\(folder.path)/1.png", "\(folder.path)/2.png")
      #expect(try diffuse(first).status == 0)
      let run = try diffuse(second, "--init", first, "--strength", "0.7", "--mask", first)
      #expect(run.status == 0 && run.standardError.contains("2 steps"), "\(run.standardError)")
      #expect(try PictureFile(path: second).image != PictureFile(path: first).image)
    }

    @Test func inpaintingModelsAskForPictureAndMask() throws {
      let folder = try TemporaryFolder()
      let (first, second) = ("\(folder.path)/1.png", "\(folder.path)/2.png")
      #expect(try diffuse(first).status == 0)
      func inpaint(_ arguments: [String]) throws -> BuiltProgram.Output {
        try BuiltProgram("quern").run(
          [
            "diffuse", "--model", Fixture.path("pipelines/inpainting"), "--prompt", "a red circle", "--output", second,
            "--steps", "2",
          ] + arguments)
      }
      for (arguments, missing) in [([], "--init"), (["--init", first], "--mask")] {
        let run = try inpaint(arguments)
        #expect(run.status == 2 && run.standardError.contains(missing), "\(run)")
        #expect(!FileManager.default.fileExists(atPath: second))
      }
      let run = try inpaint(["--init", first, "--mask", first])
      #expect(run.status == 0, "\(run.standardError)")
      #expect(try PictureFile(path: second).image.width == 16)
    }
  #endif

  @Test(arguments: [
    (["--width", "17", "--height", "16"], "--width"), (["--width", "16"], "--height"),
    (["--preview", "0"], "--preview"),
    (["--strength", "0.5"], "--init"), (["--sampler", "magic"], "dpm++-2m"), (["--guidance", "nan"], "--guidance"),
  ])
  func argumentsThatDoNotFitAreNamed(_ arguments: [String], _ word: String) throws {
    let folder = try TemporaryFolder()
    let run = try BuiltProgram("quern").run(
      ["diffuse", "--model", Self.sd, "--prompt", "a", "--output", "\(folder.path)/a.png"] + arguments)
    #expect(run.status == 2 && run.standardOutput.isEmpty && run.standardError.contains(word), "\(run)")
    #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/a.png"))
  }

  @Test func filesThatCannotBeReadAreNamed() throws {
    let folder = try TemporaryFolder()
    let broken = try folder.write("broken.png", "no picture".utf8)
    for (arguments, word) in [(["--init", broken], "broken.png"), (["--latents", broken], "broken.png")] {
      let run = try BuiltProgram("quern").run(
        ["diffuse", "--model", Self.sd, "--prompt", "a", "--output", "\(folder.path)/a.png"] + arguments)
      #expect(run.status == 1 && run.standardError.contains(word), "\(run)")
    }
    let nowhere = try diffuse("\(folder.path)/a.png", "--save-latents", "\(folder.path)/none/a.safetensors")
    #expect(
      nowhere.status == 1 && nowhere.standardError.contains("none/a.safetensors: cannot be written"), "\(nowhere)")
    #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/a.png"))
    let run = try BuiltProgram("quern").run(
      ["diffuse", "--model", folder.path, "--prompt", "a", "--output", "\(folder.path)/a.png"])
    #expect(run.status == 1 && run.standardError.contains("model_index.json"), "\(run)")
  }
}
