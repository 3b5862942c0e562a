"""IODINE in TensorFlow 2: object-centric representation learning."""
