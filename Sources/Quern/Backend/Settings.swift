import CKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// How a backend is to run. What is left `nil` comes from the environment, then from the machine.
public struct BackendOptions: Sendable, Equatable {
  /// The most threads one operation uses, the caller included.
  public static let threadRange = 1...256

  public var threads: Int?
  public var isa: ISA?
  /// How products of f32 operands are formed.
  public var f32: F32Products?
  /// The bits of what x is rounded to before products by quantised weights.
  public var activationBits: ActivationBits?
  /// How sums of convolutions are formed that allow a choice.
  public var convolution: ConvolutionSums?
  /// Whether ``Backends/make(_:options:)`` wraps the backend in a ``VerifyingBackend``.
  public var verifies: Bool?

  public init(
    threads: Int? = nil, isa: ISA? = nil, f32: F32Products? = nil, activationBits: ActivationBits? = nil,
    convolution: ConvolutionSums? = nil, verifies: Bool? = nil
  ) {
    (self.threads, self.isa, self.f32, self.activationBits) = (threads, isa, f32, activationBits)
    (self.convolution, self.verifies) = (convolution, verifies)
  }
}

/// How products of f32 operands are formed.
public enum F32Products: String, Sendable, CaseIterable {
  /// By f32 multiply-adds.
  case fma
  /// As sums of bf16 pieces where the instruction set multiplies tiles (``ISA/amx``); elsewhere as ``fma``. The stated bounds are
  /// the same.
  case split
  /// With f32 and f16 operands of `linear`, `matmul`, the two products of `gatedLinear`, `groupedLinear`, `expertLinear` and
  /// `conv2d` of channels-last images rounded to bf16 where the instruction set multiplies bf16 (``ISA/avx512bf16``, ``ISA/amx``)
  /// and there is enough to do, from 17 rows or pixels on; elsewhere as ``fma``. With ``ISA/amx`` also x and quantised weights,
  /// from 64 rows on. Sums stay f32. The error of a product is at most 2^-7 (1 + 2^-8) |x| |w| more than stated, summed over the inputs: what
  /// frameworks do with models in bf16.
  case bf16

  var code: ck_split {
    switch self {
    case .fma: CK_SPLIT_NARROW
    case .split: CK_SPLIT_THREE
    case .bf16: CK_SPLIT_ONE
    }
  }
}

/// The bits of the codes that products by quantised weights (``QuantizedFormat``) round x to, with a scale for each 32 inputs.
///
/// Sums of codes are exact; what is lost is half a step for each x, the step being the largest magnitude of its 32 over 32767 or 127.
public enum ActivationBits: String, Sendable, CaseIterable {
  /// 2⁻¹⁶ of the largest of each 32.
  case sixteen = "16"
  /// 2⁻⁸ of it, as in llama.cpp, where the instruction set multiplies bytes: all formats with ``ISA/avxvnni``, ``ISA/avx512vnni`` and those
  /// after it, and ``ISA/neondot``; with ``ISA/avx2`` and ``ISA/avx512`` those of fewer than 8 bits. Prompts are 1.3 to 1.9 times as fast
  /// on x86; `neondot` was not timed. Elsewhere as ``sixteen``.
  case eight = "8"
}

/// How sums of convolutions are formed whose ``Convolution/allowsWinograd`` is set.
public enum ConvolutionSums: String, Sendable, CaseIterable {
  /// Tap by tap, with the bound of a product.
  case direct
  /// By Winograd's minimal filtering where that pays.
  case winograd
}

/// The environment variables, read and checked in one place.
public struct Settings: Sendable, Equatable {
  /// `QUERN_BACKEND`.
  public var backend: String?
  /// `QUERN_NUM_THREADS`, else `OMP_NUM_THREADS`.
  public var threads: Int?
  /// `QUERN_MAX_ISA`: the best instruction set chosen without being asked for one. The table choice in CKernels applies it.
  public var maximumISA: ISA?
  /// `QUERN_F32`.
  public var f32: F32Products?
  /// `QUERN_ACTIVATION_BITS`.
  public var activationBits: ActivationBits?
  /// `QUERN_CONV`.
  public var convolution: ConvolutionSums?
  /// `QUERN_TRACE=fallback` reports operations that a backend hands on, on standard error.
  public var tracesFallbacks: Bool
  /// `QUERN_VERIFY=1` compares the result of every operation with the reference's: ``VerifyingBackend``.
  public var verifies: Bool

  /// Reads the process's environment.
  ///
  /// - Throws: ``QuernError/invalidSetting(name:value:expected:)`` for a value out of range.
  public static func environment() throws(QuernError) -> Settings { try Settings(lookup: variable) }

  /// The process's `QUERN_VERIFY` alone, for backends that read no other variable.
  static func environmentVerifies() throws(QuernError) -> Bool { try isSet("QUERN_VERIFY", to: "1", variable) }

  private static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

  /// Whether a variable has the one value that it takes.
  private static func isSet(
    _ name: String, to value: String, _ lookup: (String) -> String?
  ) throws(QuernError) -> Bool {
    guard let text = lookup(name), !text.isEmpty else { return false }
    guard text == value else { throw .invalidSetting(name: name, value: text, expected: value) }
    return true
  }

  /// Reads variables from `lookup`. Empty values count as unset.
  public init(lookup: (String) -> String?) throws(QuernError) {
    func value(_ name: String) -> String? { lookup(name).flatMap { $0.isEmpty ? nil : $0 } }
    backend = value("QUERN_BACKEND")
    threads = nil
    for name in ["QUERN_NUM_THREADS", "OMP_NUM_THREADS"] where threads == nil {
      guard let text = value(name) else { continue }
      // OpenMP allows a list, one entry for each nesting level; the first is ours.
      let first = name == "OMP_NUM_THREADS" ? String(text.prefix { $0 != "," }) : text
      guard let count = Int(first), BackendOptions.threadRange.contains(count) else {
        let range = BackendOptions.threadRange
        throw .invalidSetting(
          name: name, value: text, expected: "a number of threads from \(range.lowerBound) to \(range.upperBound)")
      }
      threads = count
    }
    func choice<Choice: RawRepresentable & CaseIterable>(_ name: String) throws(QuernError) -> Choice?
    where Choice.RawValue == String {
      guard let text = value(name) else { return nil }
      guard let choice = Choice(rawValue: text) else {
        let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        throw .invalidSetting(name: name, value: text, expected: "one of \(names)")
      }
      return choice
    }
    maximumISA = try choice("QUERN_MAX_ISA")
    f32 = try choice("QUERN_F32")
    activationBits = try choice("QUERN_ACTIVATION_BITS")
    convolution = try choice("QUERN_CONV")
    tracesFallbacks = try Self.isSet("QUERN_TRACE", to: "fallback", lookup)
    verifies = try Self.isSet("QUERN_VERIFY", to: "1", lookup)
  }

  /// Threads for these options: theirs, the environment's, else the cores that affinity and cgroup quota allow.
  package func threads(for options: BackendOptions) throws(QuernError) -> Int {
    guard let count = options.threads else {
      return threads ?? min(ck_allowed_threads(), BackendOptions.threadRange.upperBound)
    }
    let range = BackendOptions.threadRange
    guard range.contains(count) else {
      throw .invalidSetting(
        name: "threads", value: "\(count)", expected: "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return count
  }
}
