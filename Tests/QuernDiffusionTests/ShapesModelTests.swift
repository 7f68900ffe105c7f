import Foundation
import Quern
import QuernDiffusion
import QuernModels
import QuernTesting
import Testing

/// The committed model of shapes, which tools/train_diffusion trains: it draws what it is asked to, and that is measured.
@Suite(.enabled(if: FileManager.default.fileExists(atPath: "\(ShapesModel.directory)/model_index.json")))
struct ShapesModelTests {
  @Test func aRedCircleStandsLeftOfABlueSquare() throws {
    let directory = ShapesModel.directory
    // readme:diffusion
    let pipeline = try DiffusionPipeline(directory: directory, context: Context())
    var request = DiffusionRequest(prompt: "a red circle left of a blue square", seed: 1)
    (request.steps, request.guidanceScale) = (20, 2)
    let result = try pipeline.generate(request) { step in
      print("step \(step.index + 1) of \(step.count): \(step.duration)")
      return .proceed  // .stop ends with the picture as it is by now
    }
    print(result.image.width, result.image.height)  // and result.image.bytes, red, green and blue
    // readme:end
    let scene = ShapesModel.Scene("red", "circle", .leftOf, "blue", "square")
    let isShown = scene.isShown(in: result.image)
    #expect(isShown)
  }

  @Test func mostPicturesShowWhatTheirCaptionsSay() throws {
    let pipeline = try DiffusionPipeline(directory: ShapesModel.directory, context: Context())
    let workspace = try DiffusionPipeline.Workspace()
    var missed: [String] = []
    let scenes: [ShapesModel.Scene] = [
      .init("red", "circle", .leftOf, "blue", "square"), .init("blue", "square", .rightOf, "red", "circle"),
      .init("green", "triangle", .above, "yellow", "square"), .init("purple", "square", .below, "black", "triangle"),
      .init("yellow", "circle", .leftOf, "green", "triangle"), .init("black", "square", .above, "blue", "circle"),
    ]
    for scene in scenes {
      for seed in 0..<5 {
        var request = DiffusionRequest(prompt: scene.caption, seed: UInt64(seed))
        (request.steps, request.guidanceScale) = (20, 2)
        if try !scene.isShown(in: pipeline.generate(request, workspace: workspace).image) {
          missed.append("\(scene.caption), seed \(seed)")
        }
      }
    }
    #expect(missed.count <= 3, "of 30 pictures: \(missed)")
  }
}

/// The measure itself, which needs no model.
@Suite struct ShapesMeasureTests {
  @Test func theMeasureTellsPicturesApart() throws {
    let scene = ShapesModel.Scene("red", "circle", .leftOf, "blue", "square")
    let (circle, square): (ShapesModel.Shape, ShapesModel.Shape) = (
      .init("red", "circle", 16, 30), .init("blue", "square", 46, 33)
    )
    #expect(scene.isShown(in: try ShapesModel.drawing([circle, square])))
    #expect(!scene.isShown(in: try ShapesModel.drawing([circle])))
    let others: [(ShapesModel.Shape, ShapesModel.Shape)] = [
      (.init("red", "circle", 46, 30), .init("blue", "square", 16, 33)),
      (.init("red", "square", 16, 30), .init("blue", "circle", 46, 33)),
      (.init("blue", "circle", 16, 30), .init("red", "square", 46, 33)),
      (.init("red", "circle", 30, 16), .init("blue", "square", 33, 46)),
      (.init("red", "triangle", 16, 30), .init("blue", "square", 46, 33)),
    ]
    for (first, second) in others { #expect(!scene.isShown(in: try ShapesModel.drawing([first, second])), "\(first)") }
  }
}

@Test func theReadmeShowsTheDiffusionSnippet() throws {
  #expect(
    try ReadmeSnippet.isShown("diffusion", in: #filePath),
    "README.md lacks the lines between // readme:diffusion and // readme:end, in this order")
}

/// What the model was trained on, and the measure of its pictures: `shows` of tools/train_diffusion/pictures.py.
enum ShapesModel {
  static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Models/shapes").path

  private static let palette: [(name: String, red: Int, green: Int, blue: Int)] = [
    ("red", 220, 40, 40), ("green", 40, 160, 60), ("blue", 40, 70, 220), ("yellow", 245, 215, 40),
    ("purple", 140, 50, 170), ("black", 20, 20, 20), ("white", 250, 250, 250),
  ]

  enum Relation: String {
    case leftOf = "left of"
    case rightOf = "right of"
    case above, below

    /// Towards the second shape; y points down.
    var direction: (x: Double, y: Double) {
      switch self {
      case .leftOf: (1, 0)
      case .rightOf: (-1, 0)
      case .above: (0, 1)
      case .below: (0, -1)
      }
    }
  }

  /// Two shapes of different colours on white.
  struct Scene {
    let first, second: (colour: String, shape: String)
    let relation: Relation

    init(_ colour: String, _ shape: String, _ relation: Relation, _ otherColour: String, _ otherShape: String) {
      (first, second, self.relation) = ((colour, shape), (otherColour, otherShape), relation)
    }

    var caption: String { "a \(first.colour) \(first.shape) \(relation.rawValue) a \(second.colour) \(second.shape)" }

    func isShown(in image: RGBImage) -> Bool {
      let regions = ShapesModel.regions(of: image)
      for (name, region) in regions where region.count >= 20 {
        guard [first.colour, second.colour, "white"].contains(name) else { return false }
      }
      guard let one = regions[first.colour], let two = regions[second.colour], one.count >= 20, two.count >= 20,
        one.kind == first.shape, two.kind == second.shape
      else { return false }
      let (dx, dy) = (two.x - one.x, two.y - one.y)
      let along = dx * relation.direction.x + dy * relation.direction.y
      return along > 6 && along > abs(dx) + abs(dy) - along
    }
  }

  /// Pixels of one colour whose eight neighbours have it too.
  private struct Region {
    var count = 0
    private var sumX = 0, sumY = 0
    private var left = Int.max, right = 0, top = Int.max, bottom = 0

    mutating func add(_ x: Int, _ y: Int) {
      (count, sumX, sumY) = (count + 1, sumX + x, sumY + y)
      (left, right, top, bottom) = (min(left, x), max(right, x), min(top, y), max(bottom, y))
    }

    var x: Double { Double(sumX) / Double(count) }
    var y: Double { Double(sumY) / Double(count) }

    /// By the share of its bounding box: 0.5, 0.79 or all of it.
    var kind: String {
      let filled = Double(count) / Double((right - left + 1) * (bottom - top + 1))
      return filled < 0.65 ? "triangle" : filled < 0.9 ? "circle" : "square"
    }
  }

  private static func regions(of image: RGBImage) -> [String: Region] {
    let nearest = (0..<image.width * image.height).map { pixel -> Int in
      let (red, green, blue) = (
        Int(image.bytes[3 * pixel]), Int(image.bytes[3 * pixel + 1]), Int(image.bytes[3 * pixel + 2])
      )
      func distance(_ index: Int) -> Int {
        let colour = palette[index]
        return (red - colour.red) * (red - colour.red) + (green - colour.green) * (green - colour.green)
          + (blue - colour.blue) * (blue - colour.blue)
      }
      return palette.indices.min { distance($0) < distance($1) } ?? 0
    }
    var regions: [String: Region] = [:]
    for y in 1..<image.height - 1 {
      for x in 1..<image.width - 1 {
        let own = nearest[y * image.width + x]
        let isInner = (-1...1).allSatisfy { dy in
          (-1...1).allSatisfy { dx in nearest[(y + dy) * image.width + x + dx] == own }
        }
        if isInner { regions[palette[own].name, default: Region()].add(x, y) }
      }
    }
    return regions
  }

  struct Shape {
    let colour, shape: String
    let x, y: Double

    init(_ colour: String, _ shape: String, _ x: Double, _ y: Double) {
      (self.colour, self.shape, self.x, self.y) = (colour, shape, x, y)
    }

    func covers(_ x: Double, _ y: Double) -> Bool {
      let (x, y) = (x - self.x, y - self.y)
      switch shape {
      case "circle": return x * x + y * y < 100
      case "square": return abs(x) < 9 && abs(y) < 9
      default: return y < 10 && 2 * abs(x) < y + 10
      }
    }
  }

  /// Shapes with hard edges on white, as large as the model's are where a caption is silent about it.
  static func drawing(_ shapes: [Shape]) throws -> RGBImage {
    let bytes = (0..<64 * 64).flatMap { pixel -> [UInt8] in
      let (x, y) = (Double(pixel % 64) + 0.5, Double(pixel / 64) + 0.5)
      let name = shapes.last { $0.covers(x, y) }?.colour ?? "white"
      guard let colour = palette.first(where: { $0.name == name }) else { return [0, 0, 0] }
      return [UInt8(colour.red), UInt8(colour.green), UInt8(colour.blue)]
    }
    return try RGBImage(width: 64, height: 64, bytes: bytes)
  }
}
