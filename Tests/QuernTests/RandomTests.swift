import Foundation
import Quern
import QuernTesting
import Testing

/// Random numbers: published answers, one set of bits for every backend and every cut, and the distributions' shapes.
@Suite struct RandomTests {
  private let context = Context(backend: ReferenceBackend())

  private static func backends() throws -> [any Backend] {
    var backends: [any Backend] = [ReferenceBackend()]
    for isa in ISA.available {
      for threads in [1, 2, 5] {
        backends.append(try MultithreadedBackend(options: BackendOptions(threads: threads, isa: isa)))
      }
    }
    return backends
  }

  private func draw(
    _ distribution: RandomDistribution, _ count: Int, key: RandomKey, on backend: (any Backend)? = nil
  ) throws -> [Float] {
    let y = try MutableTensor(zeros: Shape(count))
    try Context(backend: try backend ?? MultithreadedBackend()).random(distribution, key: key, into: y)
    return y.elements
  }

  // MARK: Known answers

  /// philox4x32 with 10 rounds, from `kat_vectors` of Random123.
  @Test func wordsAreThoseOfRandom123() {
    #expect(RandomKey(seed: 0).words(block: 0) == [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8])
    #expect(
      RandomKey(seed: .max, stream: .max).words(block: .max) == [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD])
    #expect(
      RandomKey(seed: 0x299F_31D0_A409_3822, stream: 0x0370_7344_1319_8A2E).words(block: 0x85A3_08D3_243F_6A88)
        == [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1])
  }

  @Test func elementsAreMadeOfTheWords() throws {
    for backend in try Self.backends() {
      let zeros = try draw(.uniform, 4, key: RandomKey(seed: 0), on: backend)
      #expect(zeros == [0x6627E8, 0xE169C5, 0xBC57AC, 0x9B00DB].map { Float($0) * 0x1p-24 })
      let key = RandomKey(seed: 0x299F_31D0_A409_3822, stream: 0x0370_7344_1319_8A2E, offset: 0x0123_4567_89AB_CDEE)
      let words = key.words(block: key.offset / 4), after = key.words(block: key.offset / 4 + 1)
      let pair = try draw(.uniform, 3, key: key, on: backend)
      #expect(pair == [words[2], words[3], after[0]].map { Float($0 >> 8) * 0x1p-24 })
    }
  }

  @Test func normalAndGumbelFollowTheirEquations() throws {
    let key = RandomKey(seed: 11, stream: 4)
    let normal = try draw(.normal, 4096, key: key), gumbel = try draw(.gumbel, 4096, key: key)
    for position in 0..<4096 {
      let words = key.words(block: UInt64(position / 4)), lane = position % 4
      let angle = 2 * Double.pi * Double(words[lane | 1]) * 0x1p-32
      let length = (-2 * log(Double(words[lane & 2] | 1) * 0x1p-32)).squareRoot()
      let expected = length * (lane % 2 == 0 ? cos(angle) : sin(angle))
      #expect(abs(Double(normal[position]) - expected) <= 1e-6)
      let u = (Double(words[lane] >> 9) + 0.5) * 0x1p-23
      #expect(abs(Double(gumbel[position]) + log(-log(u))) <= 2e-6)
    }
  }

  // MARK: The same bits

  /// Offsets at a block, within one, at the end of 32 bits of blocks, and where numbers start again.
  private static let offsets: [UInt64] = [0, 3, 0x3_FFFF_FFFD, .max - 2000, .max]

  @Test(arguments: RandomDistribution.allCases, DataType.allCases)
  func backendsAgreeBitForBit(_ distribution: RandomDistribution, _ type: DataType) throws {
    for shape in [Shape(1, 1), Shape(7, 3), Shape(3, 1029), Shape(9, 5000)] {
      for (index, offset) in Self.offsets.enumerated() {
        let key = RandomKey(seed: 0x1234_5678_9ABC_DEF0, stream: UInt64(index), offset: offset)
        let results = try Self.backends().map { backend in
          let y = try MutableTensor(zeros: Shape(shape[0], shape[1] + index), dataType: type).columns(0..<shape[1])
          try Context(backend: backend).random(distribution, key: key, into: y)
          return y.elements.map(\.bitPattern)
        }
        #expect(results.allSatisfy { $0 == results[0] }, "\(shape) from \(offset)")
      }
    }
  }

  @Test(arguments: RandomDistribution.allCases) func piecesMakeTheWhole(_ distribution: RandomDistribution) throws {
    for backend in try Self.backends() {
      for offset in Self.offsets {
        let key = RandomKey(seed: 3, stream: 1, offset: offset)
        let whole = try draw(distribution, 3001, key: key, on: backend)
        for cut in [0, 1, 1500, 1502, 2048, 3001] {
          let parts =
            try draw(distribution, cut, key: key, on: backend)
            + draw(distribution, 3001 - cut, key: key.advanced(by: cut), on: backend)
          #expect(parts == whole, "cut at \(cut)")
        }
      }
    }
  }

  @Test func numbersStartAgainAfterTheLast() throws {
    let end = try draw(.normal, 10, key: RandomKey(seed: 8, offset: .max - 3))
    let start = try draw(.normal, 6, key: RandomKey(seed: 8))
    #expect(Array(end[4...]) == start)
    #expect(RandomKey(seed: 8, offset: .max).advanced(by: 3).offset == 2)
  }

  @Test func narrowTypesAreTheRoundedF32() throws {
    for type in [DataType.bf16, .f16] {
      for distribution in RandomDistribution.allCases {
        let key = RandomKey(seed: 21)
        let (wide, y) = (try MutableTensor(zeros: Shape(5000)), try MutableTensor(zeros: Shape(5000), dataType: type))
        let context = Context(backend: try MultithreadedBackend())
        try context.random(distribution, key: key, into: wide)
        try context.random(distribution, key: key, into: y)
        #expect(y.elements == (try wide.copied().converted(to: type).elements))
      }
    }
  }

  // MARK: Distributions

  /// Mean, variance, third and fourth central moment over powers of the deviation.
  private func moments(_ values: [Float]) -> (mean: Double, variance: Double, skewness: Double, kurtosis: Double) {
    let count = Double(values.count)
    let mean = values.reduce(0) { $0 + Double($1) } / count
    func central(_ power: Double) -> Double { values.reduce(0) { $0 + pow(Double($1) - mean, power) } / count }
    let variance = central(2)
    return (mean, variance, central(3) / pow(variance, 1.5), central(4) / (variance * variance))
  }

  /// Five standard errors each for 2²⁰ numbers.
  @Test func momentsAreThoseOfTheDistributions() throws {
    let count = 1 << 20
    let error = 5 / Double(count).squareRoot()
    let uniform = moments(try draw(.uniform, count, key: RandomKey(seed: 1, stream: 1)))
    #expect(abs(uniform.mean - 0.5) < error * 0.289 && abs(uniform.variance - 1.0 / 12) < error * 0.0746)
    let normal = moments(try draw(.normal, count, key: RandomKey(seed: 1, stream: 2)))
    #expect(abs(normal.mean) < error && abs(normal.variance - 1) < error * 1.415)
    #expect(abs(normal.skewness) < error * 2.45 && abs(normal.kurtosis - 3) < error * 4.9)
    let gumbel = moments(try draw(.gumbel, count, key: RandomKey(seed: 1, stream: 3)))
    // Euler's constant and π²/6; the fourth central moment over the square of the variance is 5.4.
    #expect(abs(gumbel.mean - 0.5772156649) < error * 1.283)
    #expect(abs(gumbel.variance - Double.pi * Double.pi / 6) < error * 1.645 * 2.1)
  }

  /// Kolmogorov and Smirnov: √n sup |F_n - F| exceeds 1.95 for one seed in a thousand.
  @Test(arguments: RandomDistribution.allCases, [1, 2, 3] as [UInt64])
  func empiricalDistributionsAreClose(_ distribution: RandomDistribution, _ seed: UInt64) throws {
    let values = try draw(distribution, 1 << 16, key: RandomKey(seed: seed, stream: 5, offset: seed)).sorted()
    func probability(_ x: Double) -> Double {
      switch distribution {
      case .uniform: x
      case .normal: erfc(-x / 2.0.squareRoot()) / 2
      case .gumbel: exp(-exp(-x))
      }
    }
    let count = Double(values.count)
    var largest = 0.0
    for (rank, value) in values.enumerated() {
      let p = probability(Double(value))
      largest = max(largest, abs(p - Double(rank) / count), abs(p - Double(rank + 1) / count))
    }
    #expect(largest * count.squareRoot() < 1.95)
  }

  /// Neighbours, seeds and streams: |correlation| √n is normal, so below 5.
  @Test func elementsSeedsAndStreamsAreUncorrelated() throws {
    let count = 1 << 18
    func correlation(_ a: ArraySlice<Float>, _ b: ArraySlice<Float>) -> Double {
      zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) } / Double(a.count).squareRoot()
    }
    let key = RandomKey(seed: 77)
    let values = try draw(.normal, count, key: key)
    for lag in 1...8 { #expect(abs(correlation(values.dropLast(lag), values.dropFirst(lag))) < 5) }
    for other in [RandomKey(seed: 78), RandomKey(seed: 77, stream: 1), RandomKey(seed: 77 << 32)] {
      #expect(abs(correlation(values[...], try draw(.normal, count, key: other)[...])) < 5)
    }
  }

  // MARK: Operands

  @Test func emptyTensorsAreFine() throws {
    for backend in try Self.backends() {
      for shape in [Shape(0), Shape(3, 0), Shape(0, 3), Shape(0, 2, 4)] {
        let y = try MutableTensor(zeros: shape)
        try Context(backend: backend).random(.normal, key: RandomKey(seed: 1, offset: .max), into: y)
      }
    }
  }

  @Test func ranksCountElementsAlike() throws {
    let flat = try draw(.normal, 2 * 3 * 4 * 5, key: RandomKey(seed: 2))
    let y = try MutableTensor(zeros: Shape(2, 3, 4, 5))
    try context.random(.normal, key: RandomKey(seed: 2), into: y)
    #expect(y.elements == flat)
  }

  @Test func destinationsThatDoNotFitAreRefused() throws {
    let y = try MutableTensor(zeros: Shape(4, 6))
    func fill(_ shape: Shape, _ strides: Shape) throws {
      try context.random(
        .uniform, key: RandomKey(seed: 1), into: y.reinterpreted(offset: 0, shape: shape, strides: strides))
    }
    refuses("rank 0") { try fill(Shape(), Shape()) }
    refuses("unit stride") { try fill(Shape(6, 4), Shape(1, 6)) }
    refuses("overlap") { try fill(Shape(2, 6), Shape(3, 1)) }
    refuses("does not fold") { try fill(Shape(2, 2, 2), Shape(5, 2, 1)) }
    #expect(y.elements.allSatisfy { $0 == 0 })
  }
}
