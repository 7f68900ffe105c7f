import Foundation
import Quern
import QuernDiffusion
import QuernTesting
import Testing

@Suite struct NoiseTests {
  private func noise(
    _ source: NoiseSource, _ use: NoiseSource.Use = .initial, pictures: Int = 2, scale: Double = 1,
    context: Context? = nil
  ) throws -> [Float] {
    let tensor = try MutableTensor(zeros: Shape(pictures, 4, 4, 16))
    try source.fill(tensor, use, scale: scale, context: context ?? Context())
    return tensor.elements
  }

  @Test func picturesAndUsesHaveStreamsOfTheirOwn() throws {
    let both = try noise(NoiseSource(seed: 7))
    #expect(try noise(NoiseSource(seed: 7, firstPicture: 1), pictures: 1) == Array(both[256...]))
    #expect(Array(both[256...]) != Array(both[..<256]))
    var seen: Set<[Float]> = [both]
    for use in [NoiseSource.Use.posterior, .step(0), .step(1)] { seen.insert(try noise(NoiseSource(seed: 7), use)) }
    seen.insert(try noise(NoiseSource(seed: 8)))
    #expect(seen.count == 5)
    let (mean, square) = (both.reduce(0, +) / 512, both.map { $0 * $0 }.reduce(0, +) / 512)
    #expect(abs(mean) < 0.2 && abs(square - 1) < 0.3)
    #expect(try noise(NoiseSource(seed: 7), scale: 2) == both.map { 2 * $0 })
  }

  @Test func everyBackendAndThreadCountHasTheSame() throws {
    let expected = try noise(NoiseSource(seed: 3))
    for backend in Parity.backends {
      #expect(try noise(NoiseSource(seed: 3), context: Context(backend)) == expected, "\(backend)")
    }
    #expect(
      try noise(NoiseSource(seed: 3), context: Context("multithreaded", options: BackendOptions(threads: 1)))
        == expected)
  }

  @Test func variationsTurnTowardsAnotherSeed() throws {
    var source = NoiseSource(seed: 3)
    let (own, other) = (try noise(source), try noise(NoiseSource(seed: 4)))
    source.variation = (4, 0)
    #expect(try Parity.difference(noise(source), own) < 1e-6)
    source.variation = (4, 1)
    #expect(try Parity.difference(noise(source), other) < 1e-6)
    source.variation = (4, 0.5)
    let middle = try noise(source)
    // Halfway along the circle the length stays, where a straight line would cut it by √2.
    let length = middle.map { $0 * $0 }.reduce(0, +) / own.map { $0 * $0 }.reduce(0, +)
    #expect(length > 0.8 && length < 1.2)
    #expect(try noise(source, .step(2)) == noise(NoiseSource(seed: 3), .step(2)))
  }

  @Test func guidanceGoesAwayFromTheUnprompted() throws {
    let outputs = try MutableTensor(zeros: Shape(4, 1, 2, 2))
    for index in 0..<16 { outputs.base[index] = Float(sin(Double(index) * 1.7)) }
    let guided = try MutableTensor(zeros: Shape(2, 1, 2, 2))
    try Guidance(scale: 7.5)(outputs.view, into: guided)
    for index in 0..<8 {
      let (without, with) = (outputs.base[index], outputs.base[index + 8])
      #expect(abs(guided.base[index] - (without + 7.5 * (with - without))) < 1e-5)
    }
    let rescaled = try MutableTensor(zeros: guided.shape)
    try Guidance(scale: 7.5, rescale: 0.7)(outputs.view, into: rescaled)
    for picture in 0..<2 {
      func deviation(_ values: ArraySlice<Float>) -> Double {
        let mean = values.map(Double.init).reduce(0, +) / Double(values.count)
        return (values.map { (Double($0) - mean) * (Double($0) - mean) }.reduce(0, +) / Double(values.count))
          .squareRoot()
      }
      let rows = picture * 4..<picture * 4 + 4
      let spread = deviation(outputs.elements[8 + rows.lowerBound..<8 + rows.upperBound])
      let factor = 0.7 * spread / deviation(guided.elements[rows]) + 0.3
      for index in rows { #expect(abs(Double(rescaled.base[index]) - factor * Double(guided.base[index])) < 1e-5) }
    }
    // In the place of either half.
    try Guidance(scale: 7.5, rescale: 0.7)(outputs.view, into: outputs.rows(0..<2))
    #expect(outputs.rows(0..<2).elements == rescaled.elements)
    #expect(throws: QuernError.self) { try Guidance(scale: .nan) }
    #expect(throws: QuernError.self) { try Guidance(scale: 2, rescale: 1.5) }
    #expect(throws: QuernError.self) { try Guidance(scale: 2)(guided.view, into: guided) }
  }
}
