"""What is drawn with unless somebody says otherwise; light, for command lines that only start."""

CHAMPION_URI = "models:/avatar-generator@champion"
