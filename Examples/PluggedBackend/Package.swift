// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "PluggedBackend",
  products: [.library(name: "PluggedBackend", targets: ["PluggedBackend"])],
  dependencies: [
    // No traits: this example needs neither OpenBLAS nor OpenMP, nor any system package.
    .package(name: "quern", path: "../..", traits: [])
  ],
  targets: [
    .target(name: "PluggedBackend", dependencies: [.product(name: "Quern", package: "quern")]),
    .testTarget(
      name: "PluggedBackendTests",
      dependencies: ["PluggedBackend", .product(name: "QuernTesting", package: "quern")]),
  ]
)
