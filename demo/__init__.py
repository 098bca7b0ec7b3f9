"""The demo board and the painter of its characters; used by the demo and the tests only."""
