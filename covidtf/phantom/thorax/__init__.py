"""The parts a phantom is drawn from: shapes, body wall, viscera, bones, vessels and findings."""
