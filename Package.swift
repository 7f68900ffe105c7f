// swift-tools-version: 6.2
import PackageDescription

// A fork or a dependent can build without any system package: `--disable-default-traits`.
let openBLAS: TargetDependency = .target(name: "COpenBLAS", condition: .when(traits: ["OpenBLAS"]))
let swiftSettings: [SwiftSetting] = [.swiftLanguageMode(.v6)]

typealias TargetDependency = Target.Dependency

let package = Package(
  name: "quern",
  products: [
    .library(name: "CKernels", targets: ["CKernels"]),
    .library(name: "Quern", targets: ["Quern"]),
    .library(name: "QuernModels", targets: ["QuernModels"]),
    .library(name: "QuernDiffusion", targets: ["QuernDiffusion"]),
    .library(name: "QuernTesting", targets: ["QuernTesting"]),
    .executable(name: "benchmarks", targets: ["benchmarks"]),
    .executable(name: "quern", targets: ["quern"]),
  ],
  traits: [
    .default(enabledTraits: ["ImageFiles", "OpenBLAS", "OpenMP"]),
    .trait(
      name: "OpenBLAS",
      description: "The blas backend and LinearAlgebra: OpenBLAS and LAPACK (libopenblas-dev, liblapacke-dev)."),
    .trait(
      name: "ImageFiles",
      description: "PNG and JPEG files of QuernDiffusion: libpng and libjpeg (libpng-dev, libjpeg-dev)."),
    .trait(name: "OpenMP", description: "Threads from LLVM's OpenMP runtime (libomp-dev) instead of a pthread pool."),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
  ],
  targets: [
    .target(
      name: "CKernels",
      path: "CKernels",
      exclude: ["README.md", "kernels.inc"],
      publicHeadersPath: "include",
      // Tools version 6.2 lets a dependency carry unsafeFlags, so kernels are optimised in debug builds too.
      cSettings: [
        .unsafeFlags(["-O3", "-std=c17", "-Wall", "-Wextra"]),
        .unsafeFlags(["-fopenmp"], .when(traits: ["OpenMP"])),
        .define("CK_OPENMP", .when(traits: ["OpenMP"])),
      ],
      linkerSettings: [
        .linkedLibrary("omp5", .when(platforms: [.linux], traits: ["OpenMP"])),
        .linkedLibrary("m", .when(platforms: [.linux])),
        .linkedLibrary("pthread", .when(platforms: [.linux])),
      ]
    ),
    .systemLibrary(
      name: "COpenBLAS",
      pkgConfig: "openblas",
      providers: [.apt(["libopenblas-dev", "liblapacke-dev"]), .brew(["openblas"])]
    ),
    .target(name: "Quern", dependencies: ["CKernels", openBLAS], swiftSettings: swiftSettings),
    .target(name: "QuernModels", dependencies: ["Quern"], swiftSettings: swiftSettings),
    // Without its trait an empty library.
    .target(
      name: "CImageFiles",
      cSettings: [
        .unsafeFlags(["-O2", "-std=c17", "-Wall", "-Wextra"]),
        .define("QUERN_IMAGE_FILES", .when(traits: ["ImageFiles"])),
      ],
      linkerSettings: [
        .linkedLibrary("png", .when(traits: ["ImageFiles"])), .linkedLibrary("jpeg", .when(traits: ["ImageFiles"])),
      ]
    ),
    .target(name: "QuernDiffusion", dependencies: ["QuernModels", "CImageFiles"], swiftSettings: swiftSettings),
    .target(name: "QuernTesting", dependencies: ["Quern", "CKernels"], swiftSettings: swiftSettings),
    .executableTarget(
      name: "quern",
      dependencies: [
        "QuernDiffusion", "QuernModels", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: swiftSettings
    ),
    .executableTarget(
      name: "benchmarks",
      dependencies: [
        "QuernModels", "QuernDiffusion", "QuernTesting", "CKernels", "CPeak", openBLAS,
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Benchmarks",
      exclude: ["CPeak", "peers", "plots"],
      swiftSettings: swiftSettings
    ),
    // The machine's own limits, which benchmarks are measured against.
    .target(
      name: "CPeak", path: "Benchmarks/CPeak", cSettings: [.unsafeFlags(["-O3", "-std=c17", "-Wall", "-Wextra"])]),
    .executableTarget(name: "CSmoke", dependencies: ["CKernels"], path: "Tests/CSmoke"),
    .executableTarget(
      name: "CTests",
      dependencies: ["CKernels"],
      path: "Tests/CTests",
      exclude: ["checks.inc", "exhaustive"],
      cSettings: [.unsafeFlags(["-O2", "-std=c17", "-Wall", "-Wextra"])]
    ),
    // Counts allocations and threads in a process of its own, for the tests.
    .target(
      name: "CAllocationCounter",
      path: "Tests/CAllocationCounter",
      // Without -fno-builtin a compiler may turn malloc's own body into a call of malloc.
      cSettings: [.unsafeFlags(["-O2", "-std=gnu17", "-Wall", "-Wextra", "-fno-builtin"])]
    ),
    .executableTarget(
      name: "AllocationProbe",
      dependencies: ["QuernModels", "QuernDiffusion", "QuernTesting", "CAllocationCounter"],
      path: "Tests/AllocationProbe",
      swiftSettings: swiftSettings
    ),
    .testTarget(
      name: "CKernelsTests", dependencies: ["CKernels", "Quern", "QuernTesting", "CSmoke", "CTests"],
      swiftSettings: swiftSettings
    ),
    .testTarget(
      name: "QuernTests", dependencies: ["Quern", "QuernTesting", "CKernels", "AllocationProbe"],
      swiftSettings: swiftSettings),
    .testTarget(
      name: "QuernModelsTests",
      dependencies: ["QuernModels", "QuernTesting", "quern", "benchmarks", "AllocationProbe"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings
    ),
    .testTarget(
      name: "QuernDiffusionTests",
      dependencies: ["QuernDiffusion", "QuernModels", "QuernTesting", "quern", "AllocationProbe"],
      resources: [.copy("Fixtures")],
      swiftSettings: swiftSettings
    ),
  ]
)
