"""Heat maps: where in an image a network finds what it scores, and how much of that lies in the lungs.

`occlusion` covers the image square by square, `gradcam` weighs the last feature maps by their gradients, and
`evidence` measures maps against lung masks.
"""
